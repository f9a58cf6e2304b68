//! The maximum over a sliding window, by three samples (Kathleen Nichols' algorithm; Linux's
//! lib/win_minmax.c).

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at: u64,
    value: u64,
}

/// A filter for the maximum of the last `span` rounds.
#[derive(Debug)]
pub(super) struct MaxFilter {
    span: u64,
    /// The maximum, then the second and third maximum of later rounds.
    best: [Sample; 3],
}

impl MaxFilter {
    pub(crate) fn new(span: u64) -> Self {
        MaxFilter { span, best: [Sample::default(); 3] }
    }

    pub(crate) fn get(&self) -> u64 {
        self.best[0].value
    }

    /// Adds `value` of round `at`; rounds never decrease.
    pub(crate) fn update(&mut self, at: u64, value: u64) {
        let sample = Sample { at, value };
        let [first, second, third] = &mut self.best;
        if value >= first.value || at - third.at > self.span {
            self.best = [sample; 3];
            return;
        }
        if value >= second.value {
            (*second, *third) = (sample, sample);
        } else if value >= third.value {
            *third = sample;
        }
        let age = at - first.at;
        if age > self.span {
            (*first, *second, *third) = (*second, *third, sample);
            if at - first.at > self.span {
                (*first, *second, *third) = (*second, *third, sample);
            }
        } else if second.at == first.at && age > self.span / 4 {
            (*second, *third) = (sample, sample);
        } else if third.at == second.at && age > self.span / 2 {
            *third = sample;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maximum_is_forgotten_after_its_span() {
        let mut filter = MaxFilter::new(10);
        filter.update(1, 100);
        for round in 2..=11 {
            filter.update(round, 50);
            assert_eq!(filter.get(), 100, "round {round}");
        }
        filter.update(12, 50);
        assert_eq!(filter.get(), 50);
        filter.update(13, 70);
        assert_eq!(filter.get(), 70);
    }
}
