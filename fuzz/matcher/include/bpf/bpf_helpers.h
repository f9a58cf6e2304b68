/* The parts of libbpf's header of this name that flow.h needs, for the host. The harness defines the helpers. */
#pragma once
#undef __always_inline /* The C library defines one. */
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
long bpf_skb_load_bytes_relative(const void *skb, __u32 offset, void *to, __u32 length, __u32 start);
/* libbpf defines a function of this name. */
#define bpf_map_lookup_elem matcher_map_lookup
void *bpf_map_lookup_elem(void *map, const void *key);
__u64 bpf_ktime_get_ns(void);
long bpf_dynptr_read(void *to, __u64 length, const struct bpf_dynptr *packet, __u64 offset, __u64 flags);
#define SEC(name)
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
