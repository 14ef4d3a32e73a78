//! How much load retries may add: a tenth of the requests, plus a small reserve.
//!
//! Units: thousandths of a retry. A retry of work that a living node refused or left unanswered costs one; going on at
//! another node after a connection ended costs nothing, since the lost attempt is no load any more.

/// Tokens for retries, earned by requests.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    tokens: u32,
}

impl RetryBudget {
    /// Notes a first attempt: it earns a tenth of a retry.
    pub fn earn(&mut self) {
        self.tokens = (self.tokens + EARNED).min(TOKENS_MAX);
    }

    /// Takes one retry, if there is one.
    pub fn spend(&mut self) -> bool {
        let enough = self.tokens >= COST;
        if enough {
            self.tokens -= COST;
        }
        enough
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { tokens: TOKENS_MAX }
    }
}

const COST: u32 = 1_000;
/// 10 % (DESIGN §6).
const EARNED: u32 = COST / 10;
/// Twenty retries: a client's first requests, made while a cluster forms, must be allowed to wait for it.
const TOKENS_MAX: u32 = 20 * COST;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_tenth_of_the_requests_once_the_reserve_is_gone() {
        let mut budget = RetryBudget::default();
        let reserve = std::iter::repeat_with(|| budget.spend()).take_while(|spent| *spent).count();
        assert_eq!(reserve, 20);
        let retries = (0..1_000)
            .filter(|_| {
                budget.earn();
                budget.spend()
            })
            .count();
        assert_eq!(retries, 100);
    }
}
