//! Packets that netkat captured and the guard did not see: a program ahead of the guard lets them reach the
//! kernel.
use crate::kernel::{Backend, Counters, Guard};

/// A watch over the programs' counters.
#[derive(Debug, Default)]
pub(crate) struct Leak {
    /// The guard is behind all that could let packets past it: what it does not see was dropped before.
    last: bool,
    /// Their number at the first look: packets that arrived before the guard's attachment.
    first: Option<u64>,
    warned: bool,
    /// The programs that ran before the guards at their attachment; a later query takes a capability.
    earlier_programs: Vec<String>,
}

impl Leak {
    /// Returns a watch that knows the programs ahead of these guards. Call it before privileges are dropped.
    pub(crate) fn watch(guards: &[Guard]) -> Leak {
        let earlier_programs =
            guards.iter().flat_map(|guard| guard.earlier_programs().unwrap_or_default()).collect();
        let last = guards.iter().all(|guard| guard.backend() == Backend::Netfilter);
        Leak { last, earlier_programs, ..Leak::default() }
    }

    /// Returns whether programs ran before the guards at their attachment.
    pub(crate) fn is_possible(&self) -> bool {
        !self.earlier_programs.is_empty()
    }

    /// Warns, once, when the counters show packets that got past the guard. Returns whether they show any.
    pub(crate) fn look(&mut self, counters: &Counters) -> bool {
        if !self.grew(counters) {
            return self.warned;
        }
        let who = match self.earlier_programs.as_slice() {
            [] => "a program that was attached at tc ingress after netkat had started".to_owned(),
            names => names.join(", "),
        };
        log::warn!(
            "{who}, ahead of the guard, lets our packets reach the kernel, which may reset the connection"
        );
        true
    }

    /// Returns, once, whether there are more than at the first look. One packet may be just between the two
    /// programs.
    fn grew(&mut self, counters: &Counters) -> bool {
        let leaked = counters.flow.saturating_sub(counters.dropped);
        let first = *self.first.get_or_insert(leaked);
        let news = !self.last && !self.warned && leaked > first + 1;
        self.warned |= news;
        news
    }
}
