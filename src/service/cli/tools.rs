//! What the commands `snapshot` and `state` have in common: which repository, how output looks, progress.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Variables, configuration, embedded, set};
use crate::blob::BlobStore;
use crate::blob::metrics::BlobMetrics;
use crate::blob::object::ObjectBlobs;
use crate::log::Log;
use crate::offline::{Catalogue, OfflineError, Progress, Scope, Unit};
use crate::service::application::BoxError;
use crate::service::config::{ConfigError, ConfigErrors, Configuration};
use crate::service::run::open_log_of_tool;
use crate::time::{Clock, Millis, SystemClock};

/// The arguments that say which repository.
pub fn arguments() -> Vec<Arg> {
    let config = Arg::new("file")
        .long("config")
        .value_name("FILE")
        .action(ArgAction::Append)
        .value_parser(clap::value_parser!(PathBuf))
        .help("Configuration file of the application: snapshot.url, snapshot.s3.*, application.id; none is needed with --url");
    let url = Arg::new("url")
        .long("url")
        .value_name("URL")
        .help("Where snapshots are kept: s3://bucket/folder or file:///directory (snapshot.url)");
    let application = Arg::new("application")
        .long("application")
        .value_name("ID")
        .help("Whose they are (application.id)");
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print JSON instead of a table");
    vec![config, url, application, set(), embedded(), json]
}

/// A repository, and how to talk about it.
pub struct Tool {
    /// The configuration, with defaults for what it does not say.
    pub configuration: Configuration,
    /// Whether output is JSON.
    pub json: bool,
    /// How far it is, on a terminal.
    pub progress: Terminal,
    clock: Arc<dyn Clock>,
}

impl Tool {
    /// Reads the configuration.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(matches: &ArgMatches, environment: Variables) -> Result<Self, BoxError> {
        let own = [("url", "snapshot.url"), ("application", "application.id")];
        let given = own.into_iter().filter_map(|(argument, option)| {
            let value = matches.get_one::<String>(argument)?;
            Some(format!("{option}={value}"))
        });
        Ok(Self {
            configuration: configuration(matches, environment, given.collect())?,
            json: matches.get_flag("json"),
            progress: Terminal::default(),
            clock: Arc::new(SystemClock::default()),
        })
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> Millis {
        self.clock.wall_ms()
    }

    /// The time.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// The id of the application.
    ///
    /// # Errors
    /// Where there is none.
    pub fn application(&self) -> Result<&str, ConfigErrors> {
        let id = self.configuration.settings().application.id.as_deref();
        id.ok_or_else(|| {
            missing(
                "application.id",
                "give it with --application, or in the file of --config",
            )
        })
    }

    /// The application's folder, which has to be there.
    ///
    /// # Errors
    /// Where nothing says where it is, and what the store says.
    pub fn store(&self) -> Result<Arc<dyn BlobStore>, BoxError> {
        let url = self.configuration.settings().snapshot.url.as_deref();
        let url = url.ok_or_else(|| missing("snapshot.url", "give it with --url, or in the file of --config"))?;
        self.folder(url, self.application()?)
    }

    /// The application's folder, which is made where it is not there.
    ///
    /// # Errors
    /// As [`Tool::store`].
    pub fn new_store(&self) -> Result<Arc<dyn BlobStore>, BoxError> {
        let url = self.configuration.settings().snapshot.url.as_deref();
        let url = url.ok_or_else(|| missing("snapshot.url", "give it with --url, or in the file of --config"))?;
        self.new_folder(url, self.application()?)
    }

    /// The folder of an application below a URL, which has to be there.
    ///
    /// # Errors
    /// What the store says.
    pub fn folder(&self, url: &str, application: &str) -> Result<Arc<dyn BlobStore>, BoxError> {
        let url = format!("{}/{application}", url.trim_end_matches('/'));
        let snapshot = &self.configuration.settings().snapshot;
        let (options, limits) = (snapshot.s3_options(), snapshot.limits());
        let opened = ObjectBlobs::open_existing(&url, &options, limits, Arc::new(BlobMetrics::default()));
        Ok(opened.map_err(OfflineError::from)?)
    }

    /// The folder of an application below a URL, which is made where it is not there.
    ///
    /// # Errors
    /// What the store says.
    pub fn new_folder(&self, url: &str, application: &str) -> Result<Arc<dyn BlobStore>, BoxError> {
        let url = format!("{}/{application}", url.trim_end_matches('/'));
        let snapshot = &self.configuration.settings().snapshot;
        let (options, limits) = (snapshot.s3_options(), snapshot.limits());
        let opened = ObjectBlobs::open(&url, &options, limits, Arc::new(BlobMetrics::default()));
        Ok(opened.map_err(OfflineError::from)?)
    }

    /// Reads what the repository holds.
    ///
    /// # Errors
    /// As [`Catalogue::read`].
    pub fn catalogue(&self, scope: Scope) -> Result<Catalogue, BoxError> {
        Ok(Catalogue::read(self.store()?, scope, &self.progress)?)
    }

    /// Kafka, or the embedded log in its directory; `None` where the configuration names neither.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn log(&self) -> Result<Option<Arc<dyn Log>>, BoxError> {
        Ok(open_log_of_tool(&self.configuration, &self.clock)?)
    }
}

fn missing(key: &str, reason: &str) -> ConfigErrors {
    ConfigError::Missing {
        key: key.to_owned(),
        reason: reason.to_owned(),
    }
    .into()
}

/// A progress bar on standard error; nothing where that is no terminal.
#[derive(Default)]
pub struct Terminal(RefCell<Option<ProgressBar>>);

const OF_ITEMS: &str = "{msg} [{bar:40}] {human_pos}/{human_len}, {eta} left";
const OF_BYTES: &str = "{msg} [{bar:40}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";

fn style(unit: Unit) -> ProgressStyle {
    let template = match unit {
        Unit::Items => OF_ITEMS,
        Unit::Bytes => OF_BYTES,
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress for Terminal {
    fn begin(&self, what: &str, total: u64, unit: Unit) {
        self.end();
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style(unit));
        bar.set_message(what.to_owned());
        *self.0.borrow_mut() = Some(bar);
    }

    fn advance(&self, by: u64) {
        if let Some(bar) = &*self.0.borrow() {
            bar.inc(by);
        }
    }

    fn end(&self) {
        if let Some(bar) = self.0.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_of_progress_bars_are_right_and_a_bar_goes_away() {
        assert!(
            [OF_ITEMS, OF_BYTES]
                .iter()
                .all(|template| ProgressStyle::with_template(template).is_ok())
        );
        let terminal = Terminal::default();
        terminal.begin("verifying", 10, Unit::Bytes);
        terminal.advance(4);
        assert_eq!(terminal.0.borrow().as_ref().map(ProgressBar::position), Some(4));
        terminal.end();
        assert!(terminal.0.borrow().is_none());
    }
}
