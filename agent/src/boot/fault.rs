//! Places where a test makes the agent die.
//!
//! The promise is that an agent that dies anywhere in the flow and is started again ends with one
//! container and one signal id. A test can only hold it to that if it can choose where: with
//! `HELIOGRAPH_FAULT_POINT` set to one of these names, the process aborts there, as on a power cut,
//! without running a destructor. When it is not set, reaching a point compares two small numbers.

use std::fmt;
use std::str::FromStr;

macro_rules! fault_points {
    ($($variant:ident = $name:literal,)+) => {
        /// A place between two steps that change something, or before the first.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum FaultPoint {
            $($variant,)+
        }

        impl FaultPoint {
            /// In the order in which a run reaches them.
            pub const ALL: &'static [FaultPoint] = &[$(FaultPoint::$variant,)+];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(FaultPoint::$variant => $name,)+
                }
            }
        }
    };
}

fault_points! {
    AfterFind = "after_find",
    AfterDecode = "after_decode",
    AfterDocument = "after_document",
    AfterPlan = "after_plan",
    AfterEngine = "after_engine",
    AfterPull = "after_pull",
    AfterRemove = "after_remove",
    AfterPrepare = "after_prepare",
    AfterCreate = "after_create",
    AfterStart = "after_start",
    AfterWatch = "after_watch",
    AfterOutputs = "after_outputs",
    AfterOutbox = "after_outbox",
    AfterSend = "after_send",
    AfterMark = "after_mark",
    AfterOutboxRemoved = "after_outbox_removed",
}

impl fmt::Display for FaultPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No point has that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no fault point has this name; see heliograph-agent fault-points")]
pub struct UnknownFaultPoint;

impl FromStr for FaultPoint {
    type Err = UnknownFaultPoint;

    fn from_str(name: &str) -> Result<FaultPoint, UnknownFaultPoint> {
        let mut points = FaultPoint::ALL.iter().copied();
        points.find(|point| point.as_str() == name).ok_or(UnknownFaultPoint)
    }
}

/// Where this process is to die, if anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults(pub Option<FaultPoint>);

impl Faults {
    /// Does not return if this is the point.
    pub fn reach(self, point: FaultPoint) {
        if self.0 == Some(point) {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for point in FaultPoint::ALL {
            assert_eq!(point.as_str().parse(), Ok(*point));
        }
        assert_eq!("nowhere".parse::<FaultPoint>(), Err(UnknownFaultPoint));
    }

    #[test]
    fn nothing_happens_without_a_choice() {
        Faults::default().reach(FaultPoint::AfterFind);
        Faults(Some(FaultPoint::AfterMark)).reach(FaultPoint::AfterFind);
    }
}
