//! Windows (RFC 9113 §5.2, §6.9): how much the other side may still be sent.

use super::frame::MAX_31;

/// What may come.
#[derive(Clone, Copy, Debug)]
pub struct Inflow {
    /// How much may come without being asked for.
    window: u32,
    /// How much has come that it was not asked for again.
    used: u32,
}

/// More came than may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded;

impl Inflow {
    pub fn new(window: u32) -> Inflow {
        Inflow { window, used: 0 }
    }

    /// So much has come.
    pub fn take(&mut self, bytes: u32) -> Result<(), Exceeded> {
        self.used = self.used.saturating_add(bytes);
        if self.used > self.window { Err(Exceeded) } else { Ok(()) }
    }

    /// What is to be asked for now, so that the other side need not wait: nothing until half of it was used.
    pub fn due(&mut self) -> Option<u32> {
        (self.used > 0 && self.used >= self.window / 2).then(|| std::mem::take(&mut self.used))
    }
}

/// What may be sent. It is below zero where the other side has taken some of it back (§6.9.2).
#[derive(Clone, Copy, Debug)]
pub struct Outflow(i64);

impl Outflow {
    pub fn new(window: u32) -> Outflow {
        Outflow(window.into())
    }

    pub fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// So much was sent: no more than there was [`Outflow::room`] for.
    pub fn spend(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub_unsigned(bytes as u64);
    }

    /// Opens the window, or with a negative number closes it.
    pub fn change(&mut self, by: i64) -> Result<(), Exceeded> {
        self.0 = self.0.saturating_add(by);
        if self.0 > MAX_31.into() { Err(Exceeded) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_asked_for_again_by_halves() {
        let mut inflow = Inflow::new(100);
        assert_eq!((inflow.due(), inflow.take(49), inflow.due()), (None, Ok(()), None));
        assert_eq!((inflow.take(1), inflow.due(), inflow.due()), (Ok(()), Some(50), None));
        assert_eq!((inflow.take(100), inflow.take(1)), (Ok(()), Err(Exceeded)));
        assert_eq!(inflow.take(u32::MAX), Err(Exceeded));
    }

    #[test]
    fn windows_close_below_nothing_and_open_to_a_limit() {
        let mut outflow = Outflow::new(10);
        outflow.spend(10);
        assert_eq!(outflow.change(-5), Ok(()));
        assert_eq!(outflow.room(), 0);
        assert_eq!((outflow.change(5), outflow.room()), (Ok(()), 0));
        assert_eq!((outflow.change(MAX_31.into()), outflow.room()), (Ok(()), MAX_31 as usize));
        assert_eq!(outflow.change(1), Err(Exceeded));
    }
}
