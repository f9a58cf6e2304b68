// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The programs that part our packets from the kernel's.
 *
 * netkat_capture runs on the packet socket, at the tap before tc and netfilter, and lets ours through.
 * netkat_guard runs at tc ingress, right after the taps, and drops the kernel's copy of them, so that the
 * kernel's own stack answers nothing. It takes only what carries our ports:
 *   - A later fragment has none, so it goes to both. The kernel, which never sees the first fragment, lets
 *     the rest expire in silence (RFC 1122 3.3.2 forbids a time exceeded message then).
 *   - ICMP errors about our packets go to both too. The kernel answers no ICMP error (RFC 1122 3.2.2); it
 *     looks for an established socket, finds none (the port lease is a listener, or an unconnected UDP
 *     socket, which Linux tells nothing either), and at most notes the path MTU, which is true for it too.
 *   - So do ARP and neighbour discovery: the kernel does not answer for an address that it does not own.
 *   - So does what is perhaps the ACK of a SYN cookie. Of a connection of others, the kernel is the one to take it;
 *     what is ours, the port lease, a listener that keeps no byte, drops without an answer.
 * Of a port that many may talk to, only a SYN and the flows in the flow table are ours; the rest, perhaps a
 * connection that this host translates, goes on untouched.
 * netkat_loopback runs at lo's egress and makes IPv4 frames that we inject there acceptable to the kernel.
 *
 * Attachments that the kernel does not undo when we die (clsact) are watched by a heartbeat: `heartbeat` is
 * the owner's last CLOCK_MONOTONIC time, 0 where nothing needs watching.
 */
#include "flow.h"

struct counters {
	__u64 flow, fragments, control;	/* seen by the capture program; `control` has what is unsure, too */
	__u64 dropped;			/* kept from the kernel by the guard */
	__u64 redirected;		/* given a route on lo */
};

struct counters counters = {};
volatile __u64 heartbeat = 0;

#define WHOLE_PACKET 0x7fffffff
#define count(what) ((void)__sync_fetch_and_add(&counters.what, 1))

/* The owner of a watched attachment is gone. The difference is signed: another processor may have written
 * a heartbeat that is later than our clock reading. */
static __always_inline int is_orphan(void)
{
	__u64 beat = heartbeat;

	return beat && (__s64)(bpf_ktime_get_ns() - beat) > (__s64)config.heartbeat_limit;
}

SEC("socket") int netkat_capture(struct __sk_buff *skb)
{
	if (config.sniff) {
		if (!sniffed(skb))
			return 0;
		count(flow);
		return WHOLE_PACKET;
	}
	switch (match(skb, 1)) {
	case FLOW:
		count(flow);
		return WHOLE_PACKET;
	case FRAGMENT:
		count(fragments);
		return WHOLE_PACKET;
	case CONTROL:
	case UNSURE:
		count(control);
		return WHOLE_PACKET;
	case FOREIGN:
		break;
	}
	return 0;
}

SEC("tcx/ingress") int netkat_guard(struct __sk_buff *skb)
{
	if (is_orphan() || match(skb, 0) != FLOW)
		return TC_ACT_UNSPEC;
	count(dropped);
	return TC_ACT_SHOT;
}

/* Marks a frame that has been through bpf_redirect_neigh() ("nk"). */
#define ROUTED 0x6e6b

/* A frame that a packet socket injects on lo has no route, so IPv4 input would look one up for it and take
 * 127/8 for martians (net/ipv4/route.c, ip_route_input_slow). bpf_redirect_neigh() back to lo attaches a
 * route that the loopback keeps. IPv6 has no such check. */
SEC("tcx/egress") int netkat_loopback(struct __sk_buff *skb)
{
	struct packet p;

	if (!config.local4_count || skb->protocol != bpf_htons(ETH_P_IP) || is_orphan())
		return TC_ACT_UNSPEC;
	if (!read_ip4(skb, 0, &p) || match_flow(skb, &p, FROM_US) != FLOW)
		return TC_ACT_UNSPEC;
	if (skb->tc_index == ROUTED) {
		skb->tc_index = 0;
		return TC_ACT_UNSPEC;
	}
	skb->tc_index = ROUTED;
	count(redirected);
	return bpf_redirect_neigh(skb->ifindex, 0, 0, 0);
}

char _license[] SEC("license") = "GPL";
