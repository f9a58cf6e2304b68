//! Detection of spurious recoveries: Eifel (RFC 3522) and D-SACK (RFC 3708). The response is that
//! of RFC 4015.
//!
//! Two proofs count. The ACK of the first retransmitted bytes echoes a timestamp from before their
//! retransmission: the original has arrived. Or D-SACK has reported as many bytes as were
//! retransmitted: all retransmissions were needless.
use crate::segment::is_older;

/// The detector of spurious recoveries.
#[derive(Debug, Default)]
pub(super) struct SpuriousDetector {
    episode: Option<Episode>,
}

/// A recovery that may prove spurious.
#[derive(Debug)]
struct Episode {
    /// SND.UNA at the start of the recovery: D-SACK below concerns earlier times.
    start: u64,
    /// Offset and TSval of the first retransmission. `None` if those bytes were retransmitted
    /// earlier, since an old echo may then be that of the earlier retransmission.
    first: Option<(u64, u32)>,
    /// Bytes retransmitted and not reported by D-SACK yet.
    unrefuted: u64,
    retransmitted: bool,
}

impl SpuriousDetector {
    /// Starts a recovery. D-SACK may concern it even after its end, before the next one starts.
    pub(crate) fn begin(&mut self, una: u64) {
        self.episode = Some(Episode { start: una, first: None, unrefuted: 0, retransmitted: false });
    }

    /// Ends the detection: the recovery was undone.
    pub(crate) fn end(&mut self) {
        self.episode = None;
    }

    /// Records a retransmission of `bytes` from offset `start` with TSval `timestamp`. `repeated`
    /// means that these bytes were retransmitted before.
    pub(crate) fn on_retransmission(
        &mut self,
        start: u64,
        bytes: u64,
        timestamp: Option<u32>,
        repeated: bool,
    ) {
        let Some(episode) = &mut self.episode else { return };
        if !episode.retransmitted {
            episode.retransmitted = true;
            episode.first = timestamp.filter(|_| !repeated).map(|timestamp| (start, timestamp));
        }
        episode.unrefuted += bytes;
    }

    /// Processes a D-SACK of the bytes from `left` to `right`. Returns whether the whole recovery
    /// proves spurious.
    pub(crate) fn on_dsack(&mut self, left: u64, right: u64) -> bool {
        let Some(episode) = &mut self.episode else { return false };
        if left < episode.start || !episode.retransmitted {
            return false;
        }
        episode.unrefuted = episode.unrefuted.saturating_sub(right - left);
        episode.unrefuted == 0
    }

    /// Processes an ACK that advanced SND.UNA from `una` and echoes `echo`. Returns whether the
    /// recovery proves spurious.
    pub(crate) fn on_advance(&self, una: u64, echo: Option<u32>) -> bool {
        let first = self.episode.as_ref().and_then(|episode| episode.first);
        match (echo, first) {
            (Some(echo), Some((start, timestamp))) => start == una && is_older(echo, timestamp),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_from_before_the_retransmission_is_proof() {
        let mut detector = SpuriousDetector::default();
        detector.begin(100);
        assert!(!detector.on_advance(100, Some(1)), "nothing was sent again yet");
        detector.on_retransmission(100, 10, Some(50), false);
        detector.on_retransmission(110, 10, Some(60), false);
        assert!(!detector.on_advance(100, None));
        assert!(!detector.on_advance(100, Some(50)), "the retransmission itself");
        assert!(!detector.on_advance(110, Some(49)), "that ACK was for something else");
        assert!(detector.on_advance(100, Some(49)));
    }

    #[test]
    fn an_echo_proves_nothing_of_what_was_sent_again_twice() {
        let mut detector = SpuriousDetector::default();
        detector.begin(100);
        detector.on_retransmission(100, 10, Some(50), true);
        detector.on_retransmission(100, 10, Some(60), true);
        assert!(!detector.on_advance(100, Some(40)));
    }

    #[test]
    fn every_byte_must_be_refuted() {
        let mut detector = SpuriousDetector::default();
        detector.begin(100);
        assert!(!detector.on_dsack(100, 110), "nothing was sent again yet");
        detector.on_retransmission(100, 20, None, false);
        assert!(!detector.on_dsack(50, 60), "an earlier time");
        assert!(!detector.on_dsack(100, 110));
        assert!(detector.on_dsack(110, 120));
    }
}
