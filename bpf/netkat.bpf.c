// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The programs that separate netkat's packets from the kernel's.
 *
 * netkat_capture runs on the packet socket, at the tap before tc and netfilter, and passes netkat's packets.
 * netkat_guard runs at tc ingress, right after the taps, and drops the kernel's copy of these packets, so the
 * kernel's stack answers nothing. The guard drops only packets with netkat's ports. Others go to both stacks:
 *   - A later fragment has no ports. The kernel never sees the first fragment and lets the rest expire
 *     without an answer (RFC 1122 3.3.2 forbids a time exceeded message then).
 *   - ICMP errors about netkat's packets. The kernel answers no ICMP error (RFC 1122 3.2.2). It looks for an
 *     established socket and finds none: the port lease is a listener, or an unconnected UDP socket, which
 *     Linux does not inform, either. At most the kernel notes the path MTU, which is true for it, too.
 *   - ARP and neighbour discovery. The kernel does not answer for an address that it does not own.
 *   - Datagrams to a group or to all hosts. They are for the other members on this host, too, and the kernel
 *     answers none by an ICMP error (RFC 1122 3.2.2, icmp_send() in net/ipv4/icmp.c; RFC 4443 2.4).
 *   - The possible ACK of a SYN cookie. In another program's connection the kernel must receive the ACK. In
 *     netkat's, the port lease, a listener that keeps no byte, drops the ACK without an answer.
 * On a port that many peers may talk to, netkat owns SYNs and the flows in the flow table. Other packets pass
 * untouched: they may belong to a connection that this host translates.
 * netkat_loopback runs at lo's egress and makes netkat's IPv4 frames on lo acceptable to the kernel.
 *
 * One connection has netkat_capture4 or 6. Its guard is netkat_guard_v4 or v6, at netfilter's PREROUTING, unless a
 * foreign program or rule would come before: attaching there waits for no grace period. A command has
 * netkat_admit and netkat_guard_all.
 *
 * The fast path of a command's flows (fast_path.h) has three programs more, at the end of the command's device that is
 * in this network namespace: netkat_door on the packet socket, netkat_wall and netkat_leave at tc ingress.
 *
 * The kernel does not remove a clsact attachment when its owner dies, so a heartbeat guards such attachments:
 * `heartbeat` is the owner's last CLOCK_MONOTONIC time, or 0 for an attachment that needs none.
 */
#include <linux/netfilter.h>
#include "flow.h"
#include "fast_path.h"

struct counters {
	__u64 flow, fragments, control;	/* passed by the capture program; `control` includes SHARED, UNSURE */
	__u64 dropped;			/* dropped by the guard */
	__u64 redirected;		/* given a route on lo */
};

struct counters counters = {};
volatile __u64 heartbeat = 0;

#define WHOLE_PACKET 0x7fffffff
#define count(what) ((void)__sync_fetch_and_add(&counters.what, 1))

/* Returns whether the owner of a clsact attachment has died. The difference is signed: another CPU may have
 * written a heartbeat later than this CPU's clock reading. */
static __always_inline int is_orphan(void)
{
	__u64 beat = heartbeat;

	return beat && (__s64)(bpf_ktime_get_ns() - beat) > (__s64)config.heartbeat_limit;
}

#define add(track, direction, bytes) do { \
	(void)__sync_fetch_and_add(&(track)->direction##_packets, 1); \
	(void)__sync_fetch_and_add(&(track)->direction##_bytes, bytes); \
} while (0)

/* Returns how much of an arriving packet netkat gets, and counts it. */
static __always_inline int capture(enum verdict verdict)
{
	switch (verdict) {
	case FLOW:
		count(flow);
		return WHOLE_PACKET;
	case FRAGMENT:
		count(fragments);
		return WHOLE_PACKET;
	case CONTROL:
	case SHARED:
	case UNSURE:
		count(control);
		return WHOLE_PACKET;
	case FOREIGN:
		break;
	}
	return 0;
}

SEC("socket") int netkat_capture(struct __sk_buff *skb)
{
	return capture(match(skb, 1, ANY));
}

SEC("socket") int netkat_capture4(struct __sk_buff *skb)
{
	return capture(match(skb, 1, CONNECTION4));
}

SEC("socket") int netkat_capture6(struct __sk_buff *skb)
{
	return capture(match(skb, 1, CONNECTION6));
}

SEC("tcx/ingress") int netkat_guard(struct __sk_buff *skb)
{
	if (is_orphan() || match(skb, 0, ANY) != FLOW)
		return TC_ACT_UNSPEC;
	count(dropped);
	return TC_ACT_SHOT;
}

/* struct bpf_nf_ctx of the kernel, and its function that opens a packet for reading. Before the load, user space puts
 * the function's number in the kernel's BTF in the place of this one (src/kernel/kernel_btf.rs): libbpf would read and
 * check all of that BTF for it. */
struct bpf_nf_ctx {
	const void *state;
	void *skb;
};

#define DYNPTR_FROM_SKB 0x6e6b
static int (*bpf_dynptr_from_skb)(void *skb, __u64 flags, struct bpf_dynptr *packet) = (void *)DYNPTR_FROM_SKB;

/* The guard of one connection, whose addresses and ports are all known, at PREROUTING. It compares no interface: for
 * that the verifier would search the kernel's BTF three times more, which takes 2 ms. The port lease keeps others from
 * having the same connection. */
static __always_inline int guard_ip(struct bpf_nf_ctx *ctx, enum packets packets)
{
	struct bpf_dynptr packet;
	const struct source from = { .packet = &packet };
	struct packet p;

	if (bpf_dynptr_from_skb(ctx->skb, 0, &packet))
		return NF_ACCEPT;
	if (!(packets == CONNECTION4 ? read_ip4(&from, 0, &p) : read_ip6(&from, 0, &p)))
		return NF_ACCEPT;
	if (match_flow(&from, &p, TO_US) != FLOW)
		return NF_ACCEPT;
	count(dropped);
	return NF_DROP;
}

SEC("netfilter") int netkat_guard_v4(struct bpf_nf_ctx *ctx)
{
	return guard_ip(ctx, CONNECTION4);
}

SEC("netfilter") int netkat_guard_v6(struct bpf_nf_ctx *ctx)
{
	return guard_ip(ctx, CONNECTION6);
}

/* The capture program of a command. What takes the fast path is counted as its guard counts it, so that a packet that
 * the guard does not see is noticed. */
SEC("socket") int netkat_admit(struct __sk_buff *skb)
{
	__u32 length;

	if (config.fast && !is_orphan() && arriving(skb, &length)) {
		count(flow);
		return 0;
	}
	return capture(match(skb, 1, COMMAND));
}

/* The guard of a command. */
SEC("tcx/ingress") int netkat_guard_all(struct __sk_buff *skb)
{
	struct track *track;
	__u32 length;

	if (is_orphan())
		return TC_ACT_UNSPEC;
	if (config.fast && (track = arriving(skb, &length))) {
		count(dropped);
		add(track, received, length);
		/* The device takes frames to an assumed link address for another host's. */
		if (config.assumed)
			bpf_skb_change_type(skb, PACKET_HOST);
		return bpf_redirect_peer(config.outer, 0);
	}
	if (match(skb, 0, COMMAND) != FLOW)
		return TC_ACT_UNSPEC;
	count(dropped);
	return TC_ACT_SHOT;
}

/* Passes netkat those packets of the command's that do not take the fast path. */
SEC("socket") int netkat_door(struct __sk_buff *skb)
{
	__u32 length;

	return leaving(skb, &length) ? 0 : WHOLE_PACKET;
}

/* Sends the command's packets on by the fast path. netkat has got the others. */
SEC("tcx/ingress") int netkat_leave(struct __sk_buff *skb)
{
	__u8 addresses[2 * ETH_ALEN];
	struct track *track;
	__u32 length;
	__u64 next_hop;
	__u16 uplink;

	track = leaving(skb, &length);
	if (!track)
		return TC_ACT_SHOT;
	next_hop = track->next_hop;
	uplink = uplink_of(next_hop);
	if (uplink >= MAX_UPLINKS)
		return TC_ACT_SHOT;
	__builtin_memcpy(addresses, &next_hop, ETH_ALEN);
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		addresses[ETH_ALEN + i] = config.uplinks[uplink].mac[i];
	if (bpf_skb_store_bytes(skb, 0, addresses, sizeof(addresses), 0))
		return TC_ACT_SHOT;
	add(track, sent, length);
	return bpf_redirect(config.uplinks[uplink].index, 0);
}

/* Holds netkat_leave. The kernel empties an array of programs when the last process that has it open ends. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} successor SEC(".maps");

/* Keeps the command's packets from the host's kernel, with and without netkat: it goes with the device. Without
 * netkat it resets connections whose end nobody acknowledges, since their sockets would keep namespace and device for
 * minutes. */
SEC("tcx/ingress") int netkat_wall(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &successor, 0);
	return reset(skb);
}

/* tc_index of a frame after bpf_redirect_neigh() ("nk"). */
#define ROUTED 0x6e6b
/* Offset of the destination in a frame of lo, whose link header is Ethernet's. */
#define DESTINATION4 (ETH_HLEN + 16)

/* The checksums stay as they are, since a frame leaves with the destination that it came with. */
static __always_inline int set_destination4(struct __sk_buff *skb, __be32 to)
{
	return bpf_skb_store_bytes(skb, DESTINATION4, &to, sizeof(to), 0) == 0;
}

/* A frame that a packet socket injects on lo has no route. IPv4 input would look up a route and drop a source of
 * this host as martian (net/ipv4/route.c, ip_route_input_slow). bpf_redirect_neigh() back to lo attaches a route
 * that the loopback keeps. IPv6 has no such check.
 *
 * The route must be of type local: the kernel resets no segment that came by another (net/ipv4/tcp_ipv4.c,
 * tcp_v4_send_reset). A lookup bound to lo finds addresses of other interfaces on no interface and makes the type
 * unicast. So the lookup sees the destination 0.0.0.0, which is this host (ip_route_output_key_hash_rcu), and
 * the second pass puts the destination back, which waits in cb. */
SEC("tcx/egress") int netkat_loopback(struct __sk_buff *skb)
{
	struct packet p;
	__be32 destination;
	int routed = skb->tc_index == ROUTED;

	if (!config.local4_count || skb->protocol != bpf_htons(ETH_P_IP) || is_orphan())
		return TC_ACT_UNSPEC;
	if (!read_ip4(frame(skb), 0, &p))
		return TC_ACT_UNSPEC;
	if (routed && !p.destination[0])
		p.destination[0] = skb->cb[0];
	if (match_flow(frame(skb), &p, FROM_US) != FLOW)
		return TC_ACT_UNSPEC;
	destination = p.destination[0];
	/* A group's frame keeps its way: a route of type local would be wrong for it. The kernel takes the frame for
	 * martian, but another netkat's tap comes before. */
	if (bpf_ntohl(destination) >> 28 == 0xe || destination == bpf_htonl(0x7fffffff))
		return TC_ACT_UNSPEC;
	if (routed) {
		skb->tc_index = 0;
		skb->cb[0] = 0;
		set_destination4(skb, destination);
		return TC_ACT_UNSPEC;
	}
	if (!set_destination4(skb, 0))
		return TC_ACT_UNSPEC;
	skb->tc_index = ROUTED;
	skb->cb[0] = destination;
	count(redirected);
	return bpf_redirect_neigh(skb->ifindex, 0, 0, 0);
}

char _license[] SEC("license") = "GPL";
