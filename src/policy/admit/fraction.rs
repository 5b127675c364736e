//! A fraction of an amount that is used.

/// `parts` of `whole`, which is never 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fraction {
    pub(crate) parts: u64,
    pub(crate) whole: u64,
}

impl Fraction {
    pub(crate) const NONE: Self = Self { parts: 0, whole: 1 };

    /// This fraction of `amount`, rounded up.
    pub(crate) fn of_rounded_up(self, amount: u64) -> u64 {
        let product = u128::from(self.parts) * u128::from(amount);
        u64::try_from(product.div_ceil(u128::from(self.whole))).unwrap_or(u64::MAX)
    }

    /// This fraction of `amount`, rounded down.
    pub(crate) fn of(self, amount: u64) -> u64 {
        let product = u128::from(self.parts) * u128::from(amount);
        u64::try_from(product / u128::from(self.whole)).unwrap_or(u64::MAX)
    }
}
