/* What flow.h needs of libbpf's header of this name, for the host: the helper functions are the harness's. */
#pragma once
#undef __always_inline /* the C library has one */
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
long bpf_skb_load_bytes_relative(const void *skb, __u32 offset, void *to, __u32 length, __u32 start);
/* libbpf has a function of this name. */
#define bpf_map_lookup_elem matcher_map_lookup
void *bpf_map_lookup_elem(void *map, const void *key);
__u64 bpf_ktime_get_ns(void);
#define SEC(name)
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
