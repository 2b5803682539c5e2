//! TLS by the OpenSSL that librdkafka brings, and who the client says it is (SASL: PLAIN and SCRAM).

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};
use openssl::pkcs5::pbkdf2_hmac;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use openssl::ssl::{HandshakeError, SslConnector, SslMethod, SslStream, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;
use openssl::{base64, memcmp, rand};

use super::super::deadline::Deadline;
use super::api;
use super::connection::{Connection, ConnectionError};

/// A socket, encrypted or not.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<SslStream<TcpStream>>),
}

impl Stream {
    pub fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.get_ref(),
        }
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }
}

/// What TLS needs, by the paths and words of the options.
#[derive(Clone, Default)]
pub(super) struct TlsOptions {
    pub ca_file: Option<String>,
    pub certificate_file: Option<String>,
    pub key_file: Option<String>,
    pub key_password: Option<String>,
    pub verifies_host: bool,
    pub verifies_certificate: bool,
}

impl TlsOptions {
    fn connector(&self) -> Result<SslConnector, String> {
        let failed = |what: &str, error: &dyn fmt::Display| format!("{what}: {error}");
        let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(|error| failed("TLS", &error))?;
        if let Some(file) = &self.ca_file {
            // In place of the system's authorities, not beside them.
            let store = X509StoreBuilder::new().map_err(|error| failed("TLS", &error))?;
            builder.set_cert_store(store.build());
            let set = builder.set_ca_file(file);
            set.map_err(|error| failed(&format!("the file of authorities {file} cannot be used"), &error))?;
        }
        if let Some(file) = &self.certificate_file {
            let set = builder.set_certificate_chain_file(file);
            set.map_err(|error| failed(&format!("the certificate {file} cannot be used"), &error))?;
        }
        if let Some(file) = &self.key_file {
            let unusable = |error: &dyn fmt::Display| failed(&format!("the private key {file} cannot be used"), error);
            let pem = std::fs::read(file).map_err(|error| unusable(&error))?;
            let key = match &self.key_password {
                Some(password) => PKey::private_key_from_pem_passphrase(&pem, password.as_bytes()),
                None => PKey::private_key_from_pem(&pem),
            };
            let set = key.and_then(|key| builder.set_private_key(&key));
            set.map_err(|error| unusable(&error))?;
        }
        if !self.verifies_certificate {
            builder.set_verify(SslVerifyMode::NONE);
        }
        Ok(builder.build())
    }
}

/// How the client says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    /// By its registered name; `None` for one that is not built in.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Plain, Self::ScramSha256, Self::ScramSha512]
            .into_iter()
            .find(|mechanism| mechanism.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    fn digest(self) -> MessageDigest {
        match self {
            Self::ScramSha512 => MessageDigest::sha512(),
            _ => MessageDigest::sha256(),
        }
    }
}

/// Who connects.
#[derive(Clone)]
pub(super) struct Credentials {
    pub mechanism: Mechanism,
    pub user: String,
    pub password: String,
}

/// How connections are secured.
#[derive(Clone, Default)]
pub(super) struct Security {
    tls: Option<Arc<SslConnector>>,
    verifies_host: bool,
    credentials: Option<Arc<Credentials>>,
}

impl Security {
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn new(tls: Option<&TlsOptions>, credentials: Option<Credentials>) -> Result<Self, String> {
        Ok(Self {
            verifies_host: tls.is_some_and(|tls| tls.verifies_host),
            tls: tls.map(|tls| tls.connector().map(Arc::new)).transpose()?,
            credentials: credentials.map(Arc::new),
        })
    }

    /// Encrypts a connection, if that is wanted; waits no longer than the socket does.
    pub fn wrap(&self, socket: TcpStream, host: &str) -> io::Result<Stream> {
        let Some(connector) = &self.tls else {
            return Ok(Stream::Plain(socket));
        };
        let mut configuration = connector.configure().map_err(io::Error::other)?;
        configuration.set_verify_hostname(self.verifies_host);
        match configuration.connect(host, socket) {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(HandshakeError::WouldBlock(_)) => Err(ErrorKind::TimedOut.into()),
            Err(error) => Err(io::Error::other(format!("TLS: {error}"))),
        }
    }

    /// Says who connects, if that is wanted.
    pub fn authenticate(&self, connection: &mut Connection, deadline: &Deadline) -> Result<(), ConnectionError> {
        let Some(credentials) = &self.credentials else {
            return Ok(());
        };
        let mechanism = credentials.mechanism;
        let name = mechanism.name();
        let others = connection.call(
            api::SASL_HANDSHAKE,
            |out| api::sasl_handshake(out, name),
            api::sasl_handshake_answer,
            deadline,
        )?;
        if let Some(others) = others {
            return Err(connection.refused(format!("it does not take the SASL mechanism {name}, only {others}")));
        }
        if mechanism == Mechanism::Plain {
            let message = format!("\0{}\0{}", credentials.user, credentials.password);
            return exchange(connection, message.as_bytes(), deadline).map(|_| ());
        }
        let failed = |connection: &Connection, reason: String| connection.refused(format!("SASL {name}: {reason}"));
        let first = ClientFirst::new(&credentials.user).map_err(|error| failed(connection, error.to_string()))?;
        let answer = exchange(connection, first.message().as_bytes(), deadline)?;
        let proof = first.proof(&credentials.password, mechanism.digest(), &answer);
        let proof = proof.map_err(|reason| failed(connection, reason))?;
        let answer = exchange(connection, proof.message.as_bytes(), deadline)?;
        match proof.is_confirmed_by(&answer) {
            true => Ok(()),
            false => Err(failed(connection, "the broker does not know the password".to_owned())),
        }
    }
}

fn exchange(connection: &mut Connection, bytes: &[u8], deadline: &Deadline) -> Result<Vec<u8>, ConnectionError> {
    let write = |out: &mut super::wire::Writer| api::sasl_authenticate(out, bytes);
    let answer = connection.call(api::SASL_AUTHENTICATE, write, api::sasl_authenticate_answer, deadline)?;
    answer.map_err(|reason| connection.refused(format!("authentication failed: {reason}")))
}

/// The first message of SCRAM (RFC 5802), without its header.
struct ClientFirst {
    nonce: String,
    bare: String,
}

/// What shows that the client knows the password, and what the server has to answer if it knows it too.
struct Proof {
    message: String,
    server_signature: Vec<u8>,
}

impl ClientFirst {
    fn new(user: &str) -> Result<Self, ErrorStack> {
        let mut random = [0; 24];
        rand::rand_bytes(&mut random)?;
        Ok(Self::with_nonce(user, base64::encode_block(&random)))
    }

    fn with_nonce(user: &str, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self {
            bare: format!("n={user},r={nonce}"),
            nonce,
        }
    }

    fn message(&self) -> String {
        format!("n,,{}", self.bare)
    }

    fn proof(&self, password: &str, digest: MessageDigest, server_first: &[u8]) -> Result<Proof, String> {
        const ITERATIONS_MAX: usize = 10_000_000;
        let server_first = std::str::from_utf8(server_first).map_err(|_| "the broker's answer is no text")?;
        let field = |name: &str| {
            let mut fields = server_first.split(',');
            fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        let (Some(nonce), Some(salt), Some(iterations)) = (field("r"), field("s"), field("i")) else {
            return Err("the broker's answer lacks nonce, salt or iterations".to_owned());
        };
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the broker's nonce does not continue ours".to_owned());
        }
        let iterations: usize = iterations.parse().map_err(|_| "the number of iterations is none")?;
        if !(1..=ITERATIONS_MAX).contains(&iterations) {
            return Err(format!("{iterations} iterations are not acceptable"));
        }
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{server_first},{without_proof}", self.bare);
        let compute = || -> Result<(Vec<u8>, Vec<u8>), ErrorStack> {
            let salt = base64::decode_block(salt)?;
            let mut salted = vec![0; digest.size()];
            pbkdf2_hmac(password.as_bytes(), &salt, iterations, digest, &mut salted)?;
            let client_key = hmac(digest, &salted, b"Client Key")?;
            let stored_key = hash(digest, &client_key)?;
            let signature = hmac(digest, &stored_key, signed.as_bytes())?;
            let proof = client_key
                .iter()
                .zip(&signature)
                .map(|(key, sign)| key ^ sign)
                .collect();
            let server_key = hmac(digest, &salted, b"Server Key")?;
            Ok((proof, hmac(digest, &server_key, signed.as_bytes())?))
        };
        let (proof, server_signature) = compute().map_err(|error| error.to_string())?;
        Ok(Proof {
            message: format!("{without_proof},p={}", base64::encode_block(&proof)),
            server_signature,
        })
    }
}

impl Proof {
    fn is_confirmed_by(&self, server_final: &[u8]) -> bool {
        let signature = server_final
            .split(|byte| *byte == b',')
            .find_map(|field| field.strip_prefix(b"v="))
            .and_then(|text| std::str::from_utf8(text).ok())
            .and_then(|text| base64::decode_block(text).ok());
        signature.is_some_and(|signature| {
            signature.len() == self.server_signature.len() && memcmp::eq(&signature, &self.server_signature)
        })
    }
}

fn hmac(digest: MessageDigest, key: &[u8], message: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let key = PKey::hmac(key)?;
    Signer::new(digest, &key)?.sign_oneshot_to_vec(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange that RFC 7677 gives as an example.
    #[test]
    fn a_scram_exchange_is_that_of_the_standard() {
        let first = ClientFirst::with_nonce("user", "rOprNGfwEbeRWgbNEkqO".to_owned());
        assert_eq!(first.message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let answer = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let proof = first.proof("pencil", MessageDigest::sha256(), answer);
        let proof = proof.expect("the broker's answer is right");
        assert_eq!(
            proof.message,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(proof.is_confirmed_by(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        assert!(!proof.is_confirmed_by(b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        assert!(!proof.is_confirmed_by(b"e=other-error"));
    }

    #[test]
    fn a_broker_that_does_not_continue_the_nonce_is_not_believed() {
        let first = ClientFirst::with_nonce("a,b=c", "mine".to_owned());
        assert_eq!(first.message(), "n,,n=a=2Cb=3Dc,r=mine");
        for answer in [
            "r=mine,s=AAAA,i=4096",
            "r=other,s=AAAA,i=4096",
            "r=mine1,s=AAAA",
            "r=mine1,s=AAAA,i=0",
        ] {
            assert!(
                first.proof("pw", MessageDigest::sha512(), answer.as_bytes()).is_err(),
                "{answer}"
            );
        }
    }
}
