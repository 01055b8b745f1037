//! Dice. Thrown in one place, so that a simulation can throw them again as they fell (`app::tests`).

use rand::distr::{Distribution, StandardUniform};

/// A random value; of floating point numbers one from 0 to below 1.
pub(crate) fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    #[cfg(test)]
    if let Some(value) = seeded::random() {
        return value;
    }
    rand::random()
}

/// What a simulation does to the dice of its thread.
#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::RefCell;

    use rand::SeedableRng as _;
    use rand::distr::{Distribution, StandardUniform};
    use rand::rngs::StdRng;

    thread_local! {
        static DICE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    /// From now on this thread's dice fall as the seed says.
    pub(crate) fn begin(seed: u64) {
        DICE.set(Some(StdRng::seed_from_u64(seed)));
    }

    pub(super) fn random<T>() -> Option<T>
    where
        StandardUniform: Distribution<T>,
    {
        DICE.with_borrow_mut(|dice| dice.as_mut().map(rand::Rng::random))
    }
}
