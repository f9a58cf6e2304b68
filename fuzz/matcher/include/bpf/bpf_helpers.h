/* What flow.h needs of libbpf's header of this name, for the host: the one helper function is the harness's. */
#pragma once
#undef __always_inline /* the C library has one */
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
long bpf_skb_load_bytes_relative(const void *skb, __u32 offset, void *to, __u32 length, __u32 start);
