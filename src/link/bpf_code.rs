//! Codes of classic BPF in the observers' filters (linux/bpf_common.h): `LOAD_HALF` is BPF_LD | BPF_H | BPF_ABS.
pub(super) const LOAD_HALF: u16 = 0x28;
pub(super) const LOAD_BYTE: u16 = 0x30;
pub(super) const LOAD_HALF_INDEXED: u16 = 0x48;
pub(super) const LOAD_BYTE_INDEXED: u16 = 0x50;
pub(super) const LOAD_IP_LENGTH: u16 = 0xb1;
pub(super) const SET_X: u16 = 0x01;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP_EQUAL: u16 = 0x15;
/// BPF_JMP | BPF_JSET.
pub(super) const JUMP_ANY_BIT: u16 = 0x45;
pub(super) const RETURN: u16 = 0x06;
/// SKF_AD_OFF + SKF_AD_PROTOCOL: the ethertype.
pub(super) const ETHERTYPE: u32 = (-0x1000_i32).cast_unsigned();
