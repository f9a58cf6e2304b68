// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Reports packets of watched ports that the kernel drops: tracepoint skb:kfree_skb (include/trace/events/skb.h),
 * which consume_skb() does not pass.
 *
 * The kernel's structures are described as far as they are read; libbpf finds their real offsets in the running
 * kernel's BTF. Reasons exist from Linux 5.17 on, bpf_snprintf() from 5.13 on; the verifier removes what a kernel lacks.
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#define KERNEL __attribute__((preserve_access_index))

struct ns_common {
	__u32 inum;
} KERNEL;

struct net {
	struct ns_common ns;
} KERNEL;

typedef struct {
	struct net *net;
} possible_net_t;

struct net_device {
	char name[16];
	int ifindex;
	possible_net_t nd_net;
} KERNEL;

struct sock_common {
	possible_net_t skc_net;
} KERNEL;

struct sock {
	struct sock_common __sk_common;
} KERNEL;

struct sk_buff {
	unsigned char *head;
	__u16 network_header;
	__u16 protocol;
	struct net_device *dev;
	struct sock *sk;
} KERNEL;

enum skb_drop_reason___known {
	SKB_DROP_REASON_NOT_SPECIFIED___known = 2,
};

enum bpf_func_id___known {
	BPF_FUNC_snprintf___known = 165,
};

#define IPV4 0x0800
#define IPV6 0x86dd
#define ICMP 1
#define TCP 6
#define UDP 17
#define ICMPV6 58
#define IPV6_HEADER 40
#define ICMP_HEADER 8
/* Bytes from the network header on: two IPv6 headers, ICMP's and the beginning of TCP's. */
#define HEADERS 128

/* One drop, as src/kernel/drops.rs reads it. */
struct drop {
	__u32 reason;		/* enum skb_drop_reason; 0 where the kernel has none */
	__u32 netns;
	__u32 length;		/* valid bytes of `headers` */
	char device[16];
	char symbol[64];	/* where the packet was freed; empty where the kernel does not name it */
	__u8 headers[HEADERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} drops SEC(".maps");

/* The watched ports, in network byte order. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u16);
	__type(value, __u8);
} ports SEC(".maps");

volatile __u64 lost = 0;

static __always_inline int is_watched(const unsigned char *transport)
{
	__u16 pair[2];

	if (bpf_probe_read_kernel(pair, sizeof(pair), transport))
		return 0;
	return bpf_map_lookup_elem(&ports, &pair[0]) || bpf_map_lookup_elem(&ports, &pair[1]);
}

/* Returns the length of the IP header at `packet` and sets the protocol; 0 for other packets. */
static __always_inline __u32 ip_header(const unsigned char *packet, __u16 version, __u8 *protocol)
{
	__u8 first;

	if (bpf_probe_read_kernel(&first, 1, packet))
		return 0;
	if (version == IPV4 && first >> 4 == 4) {
		bpf_probe_read_kernel(protocol, 1, packet + 9);
		return (first & 15) * 4;
	}
	if (version == IPV6 && first >> 4 == 6) {
		bpf_probe_read_kernel(protocol, 1, packet + 6);
		return IPV6_HEADER;
	}
	return 0;
}

static __always_inline int is_ours(const unsigned char *packet, __u16 version)
{
	__u8 protocol = 0;
	__u32 length = ip_header(packet, version, &protocol);

	if (!length)
		return 0;
	if (protocol == TCP || protocol == UDP)
		return is_watched(packet + length);
	if (protocol != ICMP && protocol != ICMPV6)
		return 0;
	packet += length + ICMP_HEADER;
	length = ip_header(packet, version, &protocol);
	return length && (protocol == TCP || protocol == UDP) && is_watched(packet + length);
}

SEC("tp_btf/kfree_skb") int netkat_drops(unsigned long long *context)
{
	struct sk_buff *skb = (void *)context[0];
	__u16 version = bpf_ntohs(BPF_CORE_READ(skb, protocol));
	const unsigned char *packet = BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header);
	struct net_device *device;
	struct sock *sk;
	struct drop *drop;

	if ((version != IPV4 && version != IPV6) || !is_ours(packet, version))
		return 0;
	drop = bpf_ringbuf_reserve(&drops, sizeof(*drop), 0);
	if (!drop) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	__builtin_memset(drop, 0, sizeof(*drop));
	device = BPF_CORE_READ(skb, dev);
	sk = BPF_CORE_READ(skb, sk);
	if (device) {
		drop->netns = BPF_CORE_READ(device, nd_net.net, ns.inum);
		bpf_probe_read_kernel_str(drop->device, sizeof(drop->device), device->name);
	} else if (sk) {
		drop->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	}
	if (bpf_core_type_exists(enum skb_drop_reason___known))
		drop->reason = context[2];
	if (bpf_core_enum_value_exists(enum bpf_func_id___known, BPF_FUNC_snprintf___known)) {
		__u64 location = context[1];

		BPF_SNPRINTF(drop->symbol, sizeof(drop->symbol), "%ps", location);
	}
	/* The buffer may be shorter than that, and memory behind it unreadable. */
	if (!bpf_probe_read_kernel(drop->headers, HEADERS, packet))
		drop->length = HEADERS;
	else if (!bpf_probe_read_kernel(drop->headers, HEADERS / 2, packet))
		drop->length = HEADERS / 2;
	bpf_ringbuf_submit(drop, 0);
	return 0;
}

char _license[] SEC("license") = "GPL";
