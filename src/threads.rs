//! How much of a busy processor a thread takes.

/// A tenth of what another thread gets where both want the same core: not so little that it would never come to an end.
const GIVING_WAY: i32 = 10;

/// Lets this thread, and those that it starts, run where others leave time. It stays so until the thread ends.
#[cfg(target_os = "linux")]
pub fn give_way() {
    // Elsewhere this would be about the whole process.
    if let Err(error) = rustix::process::setpriority_process(None, GIVING_WAY) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

/// Lets this thread, and those that it starts, run where others leave time.
#[cfg(not(target_os = "linux"))]
pub fn give_way() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn priority() -> i32 {
        rustix::process::getpriority_process(None).expect("it can be read")
    }

    #[test]
    fn a_thread_gives_way_and_those_that_it_starts_and_no_others() {
        let before = priority();
        let started = std::thread::spawn(|| {
            give_way();
            let started = std::thread::spawn(priority).join().expect("no panic");
            (priority(), started)
        });
        let expected = before.max(GIVING_WAY);
        assert_eq!(started.join().expect("no panic"), (expected, expected));
        assert_eq!(priority(), before);
    }
}
