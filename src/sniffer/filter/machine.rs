//! Runs a program on a frame of a capture file, as the kernel runs it on a live one.
//!
//! A load beyond the end of the captured bytes rejects the frame, as does a division by zero.
use super::program::{code, extension};
use crate::{
    net::arphrd,
    sniffer::frame::{CapturedFrame, FrameDirection, LinkType},
};

/// Words of scratch memory (BPF_MEMWORDS).
pub(super) const MEMORY: usize = 16;

/// Returns what the program returns, 0 for a frame that does not pass.
pub(super) fn run(program: &[libc::sock_filter], frame: &CapturedFrame<'_>) -> u32 {
    let [bytes, ..] = frame.data;
    let mut machine = Machine { a: 0, x: 0, memory: [0; MEMORY], bytes, frame };
    let mut at = 0usize;
    while let Some(instruction) = program.get(at) {
        at += 1;
        let libc::sock_filter { code, jt, jf, k } = *instruction;
        match code & 7 {
            code::RET => return k,
            code::JMP if code & 0xf0 == code::JA => at = at.saturating_add(k as usize),
            code::JMP => at += usize::from(if machine.compares(code, k) { jt } else { jf }),
            _ => match machine.step(code, k) {
                Some(()) => {}
                None => return 0,
            },
        }
    }
    0
}

/// The registers, and the frame.
struct Machine<'a> {
    a: u32,
    x: u32,
    memory: [u32; MEMORY],
    bytes: &'a [u8],
    frame: &'a CapturedFrame<'a>,
}

impl Machine<'_> {
    fn operand(&self, code: u16, k: u32) -> u32 {
        if code & code::X != 0 { self.x } else { k }
    }

    fn compares(&self, code: u16, k: u32) -> bool {
        let operand = self.operand(code, k);
        match code & 0xf0 {
            code::JEQ => self.a == operand,
            code::JGT => self.a > operand,
            code::JGE => self.a >= operand,
            _ => self.a & operand != 0,
        }
    }

    /// Runs an instruction that does not jump. Returns `None` if it rejects the frame.
    fn step(&mut self, code: u16, k: u32) -> Option<()> {
        match code & 7 {
            code::LD => self.a = self.load(code, k)?,
            code::LDX => {
                self.x = match code & 0xe0 {
                    code::MSH => 4 * (self.bytes_at(k, 1)? & 0xf),
                    _ => self.load(code, k)?,
                }
            }
            code::ST => *self.memory.get_mut(k as usize)? = self.a,
            code::ALU => self.a = self.calculate(code, self.operand(code, k))?,
            // TAX and TXA.
            _ if code & 0xf8 == code::TAX => self.x = self.a,
            _ => self.a = self.x,
        }
        Some(())
    }

    fn load(&self, code: u16, k: u32) -> Option<u32> {
        let size = match code & 0x18 {
            code::W => 4,
            code::H => 2,
            _ => 1,
        };
        match code & 0xe0 {
            code::IMM => Some(k),
            code::MEM => self.memory.get(k as usize).copied(),
            code::LEN => u32::try_from(self.frame.length).ok(),
            code::ABS if k == extension(libc::SKF_AD_PKTTYPE) => Some(self.packet_type().into()),
            code::ABS if k == extension(libc::SKF_AD_HATYPE) => {
                Some(if self.frame.link_type == LinkType::Ethernet { arphrd::ETHER.into() } else { u32::MAX })
            }
            code::ABS if k == extension(libc::SKF_AD_VLAN_TAG_PRESENT) => {
                Some(self.frame.vlan.is_some().into())
            }
            code::ABS if k == extension(libc::SKF_AD_VLAN_TAG) => {
                Some(self.frame.vlan.map_or(0, |tag| tag.tci.into()))
            }
            code::ABS => self.bytes_at(k, size),
            _ => self.bytes_at(self.x.checked_add(k)?, size),
        }
    }

    /// Returns the packet's type (PACKET_*), as eth_type_trans() in net/ethernet/eth.c tells it from the address.
    fn packet_type(&self) -> libc::c_uchar {
        match (self.frame.direction, self.frame.link_type, self.bytes_at(0, 1)) {
            (FrameDirection::Outbound, ..) => libc::PACKET_OUTGOING,
            (_, LinkType::Ethernet, Some(first)) if first & 1 != 0 => libc::PACKET_MULTICAST,
            _ => libc::PACKET_HOST,
        }
    }

    fn bytes_at(&self, at: u32, size: usize) -> Option<u32> {
        let at = at as usize;
        let bytes = self.bytes.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn calculate(&self, code: u16, operand: u32) -> Option<u32> {
        let a = self.a;
        Some(match code & 0xf0 {
            code::ADD => a.wrapping_add(operand),
            code::SUB => a.wrapping_sub(operand),
            code::MUL => a.wrapping_mul(operand),
            code::DIV => a.checked_div(operand)?,
            code::MOD => a.checked_rem(operand)?,
            code::AND => a & operand,
            code::OR => a | operand,
            code::XOR => a ^ operand,
            code::LSH => a.checked_shl(operand).unwrap_or(0),
            code::RSH => a.checked_shr(operand).unwrap_or(0),
            _ => a.wrapping_neg(),
        })
    }
}
