//! A program of classic BPF (Documentation/networking/filter.rst).
use super::machine;
use crate::sniffer::frame::CapturedFrame;

/// Instructions of a program at most (BPF_MAXINSNS in include/uapi/linux/bpf_common.h).
pub(super) const MAX_INSTRUCTIONS: usize = 4096;

/// A program's answer for a packet that passes: the bytes to keep, more than any packet has.
pub(super) const PASSED: u32 = 0x7fff_ffff;

/// The parts of an instruction's code.
pub(super) mod code {
    pub(crate) const LD: u16 = libc::BPF_LD as u16;
    pub(crate) const LDX: u16 = libc::BPF_LDX as u16;
    pub(crate) const ST: u16 = libc::BPF_ST as u16;
    pub(crate) const ALU: u16 = libc::BPF_ALU as u16;
    pub(crate) const JMP: u16 = libc::BPF_JMP as u16;
    pub(crate) const RET: u16 = libc::BPF_RET as u16;
    pub(crate) const MISC: u16 = libc::BPF_MISC as u16;

    pub(crate) const W: u16 = libc::BPF_W as u16;
    pub(crate) const H: u16 = libc::BPF_H as u16;
    pub(crate) const B: u16 = libc::BPF_B as u16;

    pub(crate) const IMM: u16 = libc::BPF_IMM as u16;
    pub(crate) const ABS: u16 = libc::BPF_ABS as u16;
    pub(crate) const IND: u16 = libc::BPF_IND as u16;
    pub(crate) const MEM: u16 = libc::BPF_MEM as u16;
    pub(crate) const LEN: u16 = libc::BPF_LEN as u16;
    pub(crate) const MSH: u16 = libc::BPF_MSH as u16;

    pub(crate) const ADD: u16 = libc::BPF_ADD as u16;
    pub(crate) const SUB: u16 = libc::BPF_SUB as u16;
    pub(crate) const MUL: u16 = libc::BPF_MUL as u16;
    pub(crate) const DIV: u16 = libc::BPF_DIV as u16;
    pub(crate) const MOD: u16 = libc::BPF_MOD as u16;
    pub(crate) const AND: u16 = libc::BPF_AND as u16;
    pub(crate) const OR: u16 = libc::BPF_OR as u16;
    pub(crate) const XOR: u16 = libc::BPF_XOR as u16;
    pub(crate) const LSH: u16 = libc::BPF_LSH as u16;
    pub(crate) const RSH: u16 = libc::BPF_RSH as u16;
    pub(crate) const NEG: u16 = libc::BPF_NEG as u16;

    pub(crate) const JA: u16 = libc::BPF_JA as u16;
    pub(crate) const JEQ: u16 = libc::BPF_JEQ as u16;
    pub(crate) const JGT: u16 = libc::BPF_JGT as u16;
    pub(crate) const JGE: u16 = libc::BPF_JGE as u16;
    pub(crate) const JSET: u16 = libc::BPF_JSET as u16;

    pub(crate) const K: u16 = libc::BPF_K as u16;
    pub(crate) const X: u16 = libc::BPF_X as u16;
    pub(crate) const TAX: u16 = libc::BPF_TAX as u16;
}

/// Returns the position at which a program loads data that is not in the packet (SKF_AD_OFF).
pub(super) fn extension(number: libc::c_int) -> u32 {
    libc::SKF_AD_OFF.wrapping_add(number) as u32
}

/// A program that lets some packets pass.
#[derive(Clone, Debug)]
pub struct Program {
    instructions: Vec<libc::sock_filter>,
}

impl Program {
    pub(super) fn new(instructions: Vec<libc::sock_filter>) -> Program {
        Program { instructions }
    }

    /// Returns the instructions, for SO_ATTACH_FILTER.
    pub fn instructions(&self) -> &[libc::sock_filter] {
        &self.instructions
    }

    /// Returns whether a frame in one piece passes.
    pub fn passes(&self, frame: &CapturedFrame<'_>) -> bool {
        machine::run(&self.instructions, frame) != 0
    }
}
