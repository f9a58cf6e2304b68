//! The walk of a packet through a legacy table to a translation.
use super::{
    Match, Target,
    table::{Entry, LegacyTable},
    unknown,
};
use crate::host::rules::{Budget, Family, Packet, RuleLocation, Translation, Truth};

/// Maximum depth of jumps. The kernel's limit is the number of chains.
const DEPTH: usize = 64;

/// The outcome of a chain.
enum Outcome {
    /// The packet goes on behind the chain, or may.
    Through,
    /// The table ends for the packet.
    Over,
    /// A rule translates the packet.
    Found(Box<Translation>),
}

/// Returns the first rule that may translate the packet.
pub fn translation(table: &LegacyTable, packet: &Packet, budget: &mut Budget) -> Option<Translation> {
    if packet.family() != table.family() {
        return None;
    }
    let mut walk = Walk { table, packet, budget, places: Vec::new() };
    match walk.chain(table.prerouting(), true) {
        Outcome::Found(translation) => Some(*translation),
        _ => None,
    }
}

struct Walk<'a> {
    table: &'a LegacyTable,
    packet: &'a Packet<'a>,
    budget: &'a mut Budget,
    /// The rules that have led to the current chain.
    places: Vec<RuleLocation>,
}

impl Walk<'_> {
    fn chain(&mut self, start: usize, mut certain: bool) -> Outcome {
        let (mut at, mut number) = (start, 0);
        while self.places.len() < DEPTH
            && self.budget.spend()
            && let Some(entry) = self.table.entry(at)
        {
            number += 1;
            if let Target::Head(_) = entry.target {
                break;
            }
            let truth = self.judge(&entry);
            if truth != Truth::No
                && let Some(outcome) = self.follow(start, number, &entry, certain, truth)
            {
                return outcome;
            }
            // Some packets do not get past this rule.
            certain &= truth == Truth::No || !matches!(entry.target, Target::Standard(..0));
            at = entry.next;
        }
        Outcome::Through
    }

    /// Follows the target of a rule that the packet meets, or may meet. Returns `None` if the next rule
    /// follows.
    fn follow(
        &mut self,
        chain: usize,
        number: usize,
        entry: &Entry,
        certain: bool,
        truth: Truth,
    ) -> Option<Outcome> {
        let met = truth == Truth::Yes;
        let comment = entry.matches.iter().find_map(|m| match m {
            Match::Comment(text) => Some(text.clone()),
            _ => None,
        });
        let place = RuleLocation {
            chain: self.table.chain(chain).to_vec(),
            number,
            handle: None,
            comment,
            names_port: entry.matches.iter().any(Match::names_port),
        };
        match &entry.target {
            Target::Translate(translate) if translate.changes(self.packet) => {
                if let Some(name) = unknown(&entry.matches) {
                    log::debug!("rules: match \"{name}\" cannot be judged and counts as met");
                }
                self.places.push(place);
                Some(Outcome::Found(Box::new(Translation {
                    back_end: match self.table.family() {
                        Family::V4 => "iptables (legacy)",
                        Family::V6 => "ip6tables (legacy)",
                    },
                    family: None,
                    table: b"nat".to_vec(),
                    places: self.places.clone(),
                    action: translate.to_string(),
                    certain: certain && met,
                })))
            }
            Target::Translate(_) => met.then_some(Outcome::Over),
            // A rule without a target leads to the next entry.
            Target::Standard(to) if usize::try_from(*to).is_ok_and(|to| to == entry.next) => None,
            Target::Standard(to @ 0..) => {
                self.places.push(place);
                let outcome = self.chain((*to).try_into().ok()?, certain && met);
                self.places.pop();
                match outcome {
                    Outcome::Found(_) => Some(outcome),
                    Outcome::Over => met.then_some(Outcome::Over),
                    Outcome::Through => (met && entry.is_goto).then_some(Outcome::Through),
                }
            }
            // XT_RETURN.
            Target::Standard(-5) => met.then_some(Outcome::Through),
            Target::Standard(_) => met.then_some(Outcome::Over),
            Target::Head(_) | Target::Other => None,
        }
    }

    fn judge(&self, entry: &Entry) -> Truth {
        let protocol = u16::from(self.packet.protocol.number());
        let hit = entry.protocol == 0 || (entry.protocol == protocol) != entry.protocol_inverted;
        let own = self.packet.destination_bytes();
        let masked = own.iter().zip(&entry.destination_mask).map(|(byte, mask)| byte & mask);
        let same = masked.eq(entry.destination.iter().copied());
        if !hit || same == entry.destination_inverted {
            return Truth::No;
        }
        // ifname_compare_aligned in linux/netfilter/x_tables.h.
        let interface = self.packet.any_interface(|_, name| {
            let name = name.iter().copied().chain(std::iter::repeat(0));
            let wanted = entry.interface.iter().zip(&entry.interface_mask);
            let differs = name.zip(wanted).any(|(byte, (wanted, mask))| (byte ^ wanted) & mask != 0);
            differs == entry.interface_inverted
        });
        let matches = entry.matches.iter().map(|m| m.judge(self.packet));
        matches.fold(interface.and(Truth::unless(entry.more)), Truth::and)
    }
}
