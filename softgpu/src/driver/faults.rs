//! Failing on request.

use crate::control::Fault;

/// The faults that are to come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub no_device: bool,
    pub driver_version: Option<i32>,
    pub ptx_too_new: bool,
    allocation: Countdown,
    submission: Countdown,
    execution: Countdown,
    synchronisation: Countdown,
}

/// Strikes once, at the n-th event from when it was set.
#[derive(Clone, Debug, Default)]
struct Countdown(Option<u64>);

impl Countdown {
    fn strikes(&mut self) -> bool {
        let left = self.0.map(|left| left.saturating_sub(1));
        self.0 = left.filter(|&left| left > 0);
        left == Some(0)
    }
}

impl Faults {
    pub fn set(&mut self, fault: Fault) {
        match fault {
            Fault::None => *self = Self::default(),
            Fault::NoDevice => self.no_device = true,
            Fault::DriverVersion(version) => self.driver_version = Some(version),
            Fault::AllocationFails { nth } => self.allocation = Countdown(Some(nth)),
            Fault::LaunchFails { nth, sticky: false } => self.submission = Countdown(Some(nth)),
            Fault::LaunchFails { nth, sticky: true } => self.execution = Countdown(Some(nth)),
            Fault::SynchronizeFails { nth } => self.synchronisation = Countdown(Some(nth)),
            Fault::PtxTooNew => self.ptx_too_new = true,
        }
    }

    /// An allocation is made: does it fail?
    pub fn allocation_fails(&mut self) -> bool {
        self.allocation.strikes()
    }

    /// A launch is submitted: does it fail?
    pub fn submission_fails(&mut self) -> bool {
        self.submission.strikes()
    }

    /// A kernel is executed: does it fail?
    pub fn execution_fails(&mut self) -> bool {
        self.execution.strikes()
    }

    /// Somebody waits: does that fail?
    pub fn synchronisation_fails(&mut self) -> bool {
        self.synchronisation.strikes()
    }
}

/// The newest PTX ISA that a driver of this version compiles ("PTX ISA", release notes): (driver from, ISA).
const PTX_OF_DRIVER: [(i32, (u32, u32)); 14] = [
    (13000, (9, 0)),
    (12090, (8, 8)),
    (12080, (8, 7)),
    (12070, (8, 6)),
    (12050, (8, 5)),
    (12040, (8, 4)),
    (12030, (8, 3)),
    (12020, (8, 2)),
    (12010, (8, 1)),
    (12000, (8, 0)),
    (11080, (7, 8)),
    (11060, (7, 6)),
    (11040, (7, 4)),
    (11000, (7, 0)),
];

/// The newest PTX ISA of a driver.
pub(crate) fn ptx_of_driver(version: i32) -> (u32, u32) {
    PTX_OF_DRIVER.iter().find(|row| version >= row.0).map_or((6, 5), |row| row.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_countdown_strikes_once_at_the_nth() {
        let mut faults = Faults::default();
        assert!(!faults.allocation_fails());
        faults.set(Fault::AllocationFails { nth: 3 });
        let struck: Vec<bool> = (0..5).map(|_| faults.allocation_fails()).collect();
        assert_eq!(struck, [false, false, true, false, false]);
    }

    #[test]
    fn the_driver_of_the_model_card_refuses_what_nvrtc_12_9_emits() {
        assert_eq!(ptx_of_driver(12020), (8, 2));
        assert_eq!(ptx_of_driver(12090), (8, 8));
        assert_eq!(ptx_of_driver(13020), (9, 0));
    }
}
