//! How the process ends: exit codes, and the way out that waits for nobody.

/// The instance was asked to stop, committed and closed; or a command did what it was asked.
pub const EXIT_CLEAN: u8 = 0;
/// Anything that no other code says.
pub const EXIT_FAILED: u8 = 1;
/// The command line, the configuration, or the topology is wrong. Nothing was started.
pub const EXIT_USAGE: u8 = 2;
/// The log could not be reached at start within `kafka.startup_timeout`.
pub const EXIT_UNREACHABLE: u8 = 3;

unsafe extern "C" {
    /// POSIX `_exit(2)`.
    fn _exit(status: std::ffi::c_int) -> !;
}

/// Ends the process at once with `status`. No destructor and no exit handler runs: those of native libraries wait
/// for their threads or race with them, and what an instance needs to be safe is on disk and in Kafka already.
pub fn leave_at_once(status: u8) -> ! {
    // SAFETY: `_exit` takes any integer, does not return, and touches no memory of this process.
    unsafe { _exit(std::ffi::c_int::from(status)) }
}
