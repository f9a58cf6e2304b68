//! What the kernel did with a packet: the rules that judged it, as text.
#[allow(dead_code, unused_imports, reason = "the diagnosis that reads it comes next")]
pub(crate) mod rule_text;
