// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The fast path of a command (netkat --run): packets of flows that netkat has let pass go between the command's
 * device and the wire in the kernel, super-frames whole.
 *
 * netkat writes a flow's way into `tracks` and then the flow into `fast_table`. A flow's index in the one is its
 * index in the other. Only a flow's ordinary packets take the fast path: TCP without SYN, FIN or RST, and UDP, without
 * IP options, extension headers and fragments, no longer than the path's MTU. All others pass netkat, which opens and
 * ends flows, holds ports, and answers what is too long. So do flows for which `fast_table` has no room.
 *
 * A packet takes either the fast path or netkat's: the filters of the packet sockets and the programs at tc decide by
 * the same function.
 */
#ifndef NETKAT_FAST_PATH_H
#define NETKAT_FAST_PATH_H

#define IP4_PLAIN 0x45			/* version 4, no options */
#define IP4_FRAGMENT 0x3fff		/* more fragments, or an offset */
#define IP4_HEADER 20
#define IP6_HEADER 40
#define UDP_HEADER 8

/* The way of a flow, and its traffic: src/kernel/fast_path.rs writes `next_hop` and `mtu` and reads the rest. */
struct track {
	__u64 next_hop;			/* six bytes of link address, two of the number of the uplink */
	__u64 mtu;			/* maximum IP packet, in bytes */
	__u64 sent_packets, sent_bytes;	/* IP headers included */
	__u64 received_packets, received_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);		/* user space sets the number before it loads the object */
	__type(key, __u32);
	__type(value, struct bucket);
} fast_table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);		/* BUCKET for each of fast_table */
	__type(key, __u32);
	__type(value, struct track);
} tracks SEC(".maps");

/* A packet that may take the fast path. */
struct plain {
	__u64 source[2], destination[2];	/* as in `struct packet` */
	__be16 ports[2];			/* source, destination */
	__u8 family, protocol;
	__u32 length;				/* bytes of the IP packet */
	__u32 headers;				/* bytes of the IP header and TCP's or UDP's */
};

static __always_inline int read_plain4(struct __sk_buff *skb, struct plain *p)
{
	struct {
		__u8 version_ihl, tos;
		__be16 length, id, fragment;
		__u8 ttl, protocol;
		__be16 checksum;
		__be32 source, destination;
	} h;

	if (!load(skb, 0, &h, sizeof(h)))
		return 0;
	if (h.version_ihl != IP4_PLAIN || (h.fragment & bpf_htons(IP4_FRAGMENT)))
		return 0;
	p->source[0] = h.source;
	p->source[1] = 0;
	p->destination[0] = h.destination;
	p->destination[1] = 0;
	p->family = 4;
	p->protocol = h.protocol;
	p->length = bpf_ntohs(h.length);
	p->headers = IP4_HEADER;
	return 1;
}

static __always_inline int read_plain6(struct __sk_buff *skb, struct plain *p)
{
	struct {
		__be32 version_class_flow;
		__be16 length;
		__u8 next, hop_limit;
		__u64 source[2], destination[2];
	} h;

	if (!load(skb, 0, &h, sizeof(h)))
		return 0;
	if (bpf_ntohl(h.version_class_flow) >> 28 != 6)
		return 0;
	__builtin_memcpy(p->source, h.source, sizeof(h.source));
	__builtin_memcpy(p->destination, h.destination, sizeof(h.destination));
	p->family = 6;
	p->protocol = h.next;
	p->length = IP6_HEADER + bpf_ntohs(h.length);
	p->headers = IP6_HEADER;
	return 1;
}

/* Reads a packet that the fast path may take; returns 0 for all others. */
static __always_inline int read_plain(struct __sk_buff *skb, struct plain *p)
{
	__u8 offset_flags[2];

	if (skb->vlan_present)
		return 0;
	if (config.local4_count && skb->protocol == bpf_htons(ETH_P_IP)) {
		if (!read_plain4(skb, p))
			return 0;
	} else if (config.local6_count && skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (!read_plain6(skb, p))
			return 0;
	} else {
		return 0;
	}
	if (!load(skb, p->headers, p->ports, sizeof(p->ports)))
		return 0;
	if (p->protocol == IPPROTO_UDP) {
		p->headers += UDP_HEADER;
	} else if (p->protocol == IPPROTO_TCP) {
		if (!load(skb, p->headers + TCP_FLAGS - 1, offset_flags, sizeof(offset_flags)))
			return 0;
		if (offset_flags[1] & (TCP_SYN | TCP_FIN | TCP_RST))
			return 0;
		p->headers += (offset_flags[0] >> 4) * 4;
	} else {
		return 0;
	}
	return p->length >= p->headers;
}

static __always_inline int slot_in(__u32 at, __u64 flow)
{
	struct bucket *bucket = bpf_map_lookup_elem(&fast_table, &at);
	int slot = 0;

	if (!bucket)
		return 0;
#pragma unroll
	for (int i = 0; i < BUCKET; i++) {
		if (bucket->flows[i] == flow)
			slot = i + 1;
	}
	return slot ? at * BUCKET + slot : 0;
}

/* Returns a flow's index in `tracks` plus one, or 0. Not static, so the verifier walks the function once. */
__noinline int fast_slot(__u64 remote_high, __u64 remote_low, __u64 local_high, __u64 local_low, __u64 ends)
{
	__u64 flow = hash_flow(remote_high, remote_low, local_high, local_low, ends);
	int slot = slot_in(flow & config.fast_mask, flow);

	return slot ? slot : slot_in((flow >> 32) & config.fast_mask, flow);
}

static __always_inline struct track *find_track(const __u64 *remote, const __u64 *local, __u64 ends)
{
	__u32 slot = fast_slot(remote[0], remote[1], local[0], local[1], ends);

	if (!slot)
		return 0;
	slot--;
	return bpf_map_lookup_elem(&tracks, &slot);
}

/* Returns the number of the uplink in a next hop. */
static __always_inline __u16 uplink_of(__u64 next_hop)
{
	__u16 parts[4];

	__builtin_memcpy(parts, &next_hop, sizeof(next_hop));
	return parts[3];
}

/* Returns the track of a packet that the command sends by the fast path, and the packet's length. */
static __always_inline struct track *leaving(struct __sk_buff *skb, __u32 *length)
{
	struct plain p;
	struct track *track;

	/* netkat cuts off what lies behind the IP packet. */
	if (!read_plain(skb, &p) || skb->len != p.length + ETH_HLEN)
		return 0;
	track = find_track(p.destination, p.source,
			   hash_ends(p.family, p.protocol, p.ports[0], p.protocol == IPPROTO_TCP ? p.ports[1] : 0));
	if (!track || (skb->gso_size ? p.headers + skb->gso_size : p.length) > track->mtu)
		return 0;
	*length = p.length;
	return track;
}

/* Returns the track of a packet that arrives for the command by the fast path, and the packet's length. It must come
 * by the uplink that the flow leaves by, since there is a guard. */
static __always_inline struct track *arriving(struct __sk_buff *skb, __u32 *length)
{
	struct plain p;
	struct track *track;
	__u16 uplink;

	if (addressee(skb) != US || !read_plain(skb, &p))
		return 0;
	track = find_track(p.source, p.destination,
			   hash_ends(p.family, p.protocol, p.ports[1], p.protocol == IPPROTO_TCP ? p.ports[0] : 0));
	if (!track)
		return 0;
	uplink = uplink_of(track->next_hop);
	if (uplink >= MAX_UPLINKS || config.uplinks[uplink].index != skb->ifindex)
		return 0;
	*length = p.length;
	return track;
}

/* Turns a segment of the command's into its reset, as the peer would send it (RFC 9293 3.10.7.1), and sends it back.
 * Returns the action for the packet: others are dropped.
 *
 * The kernel leaves the checksum of what it sends to the device, and trusts such a segment when it receives it. The
 * frame's destination is the command's device already, which has no neighbours. */
static __always_inline int reset(struct __sk_buff *skb)
{
	struct {
		__be16 source, destination;
		__be32 sequence, acknowledgment;
		__u8 offset, flags;
		__be16 window, checksum, urgent;
	} h;
	struct plain p;
	__be16 length, port;
	int v4 = skb->protocol == bpf_htons(ETH_P_IP);

	if (v4 ? !read_plain4(skb, &p) : skb->protocol != bpf_htons(ETH_P_IPV6) || !read_plain6(skb, &p))
		return TC_ACT_SHOT;
	if (p.protocol != IPPROTO_TCP || !load(skb, p.headers, &h, sizeof(h)))
		return TC_ACT_SHOT;
	if ((h.flags & (TCP_ACK | TCP_RST)) != TCP_ACK)
		return TC_ACT_SHOT;
	port = h.source;
	h.source = h.destination;
	h.destination = port;
	h.sequence = h.acknowledgment;
	h.acknowledgment = 0;
	h.offset = sizeof(h) / 4 << 4;
	h.flags = TCP_RST;
	h.window = 0;
	h.urgent = 0;
	if (bpf_skb_change_tail(skb, ETH_HLEN + p.headers + sizeof(h), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + p.headers, &h, sizeof(h), 0))
		return TC_ACT_SHOT;
	if (v4) {
		__be32 addresses[2] = { p.destination[0], p.source[0] };

		length = bpf_htons(IP4_HEADER + sizeof(h));
		/* The sum does not depend on the order of the addresses. */
		if (bpf_l3_csum_replace(skb, ETH_HLEN + 10, bpf_htons(p.length), length, sizeof(length)) ||
		    bpf_skb_store_bytes(skb, ETH_HLEN + 2, &length, sizeof(length), 0) ||
		    bpf_skb_store_bytes(skb, ETH_HLEN + 12, addresses, sizeof(addresses), 0))
			return TC_ACT_SHOT;
	} else {
		__u64 addresses[4] = { p.destination[0], p.destination[1], p.source[0], p.source[1] };

		length = bpf_htons(sizeof(h));
		if (bpf_skb_store_bytes(skb, ETH_HLEN + 4, &length, sizeof(length), 0) ||
		    bpf_skb_store_bytes(skb, ETH_HLEN + 8, addresses, sizeof(addresses), 0))
			return TC_ACT_SHOT;
	}
	return bpf_redirect(skb->ifindex, 0);
}

#endif
