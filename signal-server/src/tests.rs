//! What the parts do together.

mod histories;
