// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Decides which packets are netkat's: the matcher of the capture, guard and loopback programs.
 *
 * User space fills `config` before it loads the object, so the verifier sees constants and prunes unused code:
 * the programs of an IPv4 connection contain no IPv6 code.
 *
 * bpf_skb_load_bytes_relative() reads the headers. It counts from the network header in a socket filter and in
 * tc alike, on devices with and without a link header, and fails beyond the packet's end. So a packet with
 * truncated headers is never netkat's.
 *
 * All loops are unrolled and all compared values initialised: without CAP_PERFMON, the verifier of Linux 6.1
 * also follows paths that a CPU takes only speculatively, and such a path never ends a loop.
 *
 * The matcher compares ports before addresses. Ports reject nearly all foreign packets, which then cost no
 * search in the list of local addresses.
 */
#ifndef NETKAT_FLOW_H
#define NETKAT_FLOW_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define BUCKET 8		/* flows of a bucket of the flow table: a cache line */
#define HASH_WORDS 10		/* 32-bit words of a flow's hash: both addresses, both ports, the protocol */
#define MAX_UPLINKS 16		/* interfaces of a command's fast path */
#define MAX_EXTENSIONS 8	/* IPv6 extension headers before the transport header */
#define VLAN_VID_MASK 0x0fff
#define IP_OFFSET_MASK 0x1fff
#define IP6_OFFSET_MASK 0xfff8

/* IPv6 extension headers and ICMPv6 (IANA, protocol numbers). linux/in6.h conflicts with the C library's header. */
#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_AUTHENTICATION 51
#define NEXT_ICMP6 58
#define NEXT_DESTINATION 60
#define NEXT_MOBILITY 135

/* ICMP errors that quote the offending packet, and answers to echo requests: RFC 792, RFC 4443. */
#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMP6_FIRST_ERROR 1
#define ICMP6_LAST_ERROR 4
#define ICMP6_ECHO_REPLY 129
#define NEIGHBOUR_SOLICITATION 135
#define NEIGHBOUR_ADVERTISEMENT 136
#define ICMP_HEADER 8

/* Offset of the flags in a TCP header, and the flags that distinguish an opening SYN: RFC 9293 3.1. */
#define TCP_FLAGS 13
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Addresses and ports are in network order. */
struct config {
	__u64 heartbeat_limit;	/* ns; an attachment goes inert when its owner's heartbeat is older */
	__u32 local4_count;	/* local IPv4 addresses; 0 switches IPv4 off */
	__u32 local6_count;	/* local IPv6 addresses; 0 switches IPv6 off */
	__u32 group4_count;	/* flow: IPv4 groups and broadcast addresses; UDP only */
	__u32 group6_count;	/* flow: IPv6 groups; UDP only */
	__u32 published_count;	/* command: ports that anybody may reach */
	__be16 local_port;	/* flow: never 0 */
	__be16 remote_port;	/* 0: any */
	__u8 protocol;		/* flow: IPPROTO_TCP or IPPROTO_UDP */
	__u8 remote_family;	/* 4 or 6: compare `remote`; 0: any remote address */
	__u8 loopback_net;	/* flow: all of 127.0.0.0/8 is local, too */
	__u8 neighbours;	/* flow: capture ARP and neighbour discovery for the local addresses, too */
	__u8 groups_only;	/* flow: packets to a local address are not netkat's, only those to a group */
	__u8 table;		/* flow: only flows in the flow table and SYNs are netkat's */
	__u32 bucket_mask;	/* number of buckets of the flow table, a power of two, less one */
	__u64 hash_key[HASH_WORDS + 1];	/* random key of the flow table's hash */
	__u8 assumed;		/* flow: the local address is assumed, with the link address `assumed_mac` */
	__u8 assumed_mac[ETH_ALEN];
	__u64 remote[2];	/* in the form of `struct packet` */
	__u64 local6[2];	/* the only local IPv6 address; more are in `lists` */
	__be32 local4;		/* the only local IPv4 address; more are in `lists` */
	__u32 fast;		/* command: flows in `fast_table` take the fast path, see fast_path.h */
	__u32 fast_mask;	/* number of buckets of `fast_table`, a power of two, less one */
	__u32 outer;		/* index of the command's device, the end in this network namespace */
	struct {
		__u32 index;
		__u8 mac[ETH_ALEN];	/* link address of packets that leave */
	} uplinks[MAX_UPLINKS];
};

const volatile struct config config = {};

/* Lists that `config` has no room for. User space fills them before it attaches a program. */
enum list { LOCAL4, LOCAL6, GROUP4, GROUP6, PUBLISHED };

struct entry {
	__u64 list;		/* enum list */
	__u64 value[2];		/* an address as in `struct packet`, or a protocol and a port */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);		/* user space sets the number before it loads the object */
	__type(key, struct entry);
	__type(value, __u8);
} lists SEC(".maps");

/*
 * The flow table lists netkat's flows where `config` alone cannot decide, because many peers or ports may talk
 * to netkat's port. On a router or a node, masquerading uses this port for other connections, too.
 *
 * User space writes the table through its mapping, without a system call. An entry is a keyed hash of the
 * flow's addresses and remote port: one aligned 64-bit word, so no reader sees half of an entry. 0 is free. The
 * hash names two buckets for its entry (Azar, Broder, Karlin, Upfal, "Balanced Allocations", 1999), so a
 * lookup reads two cache lines at most.
 */
struct bucket {
	__u64 flows[BUCKET];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);		/* user space sets the number before it loads the object */
	__type(key, __u32);
	__type(value, struct bucket);
} flow_table SEC(".maps");

/* CLOCK_MONOTONIC, ns: until this time a segment outside of the flow table may be netkat's, because SYN cookies
 * are in flight. */
volatile __u64 unsure_until = 0;

enum verdict {
	FOREIGN,	/* not netkat's */
	FLOW,		/* a segment or datagram of netkat's, or its first fragment */
	FRAGMENT,	/* a later fragment, without ports: perhaps netkat's */
	CONTROL,	/* an ICMP error about netkat's packet, ARP or neighbour discovery for its address */
	SHARED,		/* a datagram to a group or to all hosts: the kernel gets it, too, for the other members */
	UNSURE,		/* perhaps the ACK of netkat's SYN cookie: the kernel sees it, too */
};

/* Direction of a header: to netkat, or from netkat (on egress, or quoted by an ICMP error). */
enum side { TO_US, FROM_US };

struct packet {
	__u64 source[2], destination[2];	/* halves in network order; the second of IPv4 is 0 */
	__u32 transport;			/* offset of the transport header */
	__u8 family, protocol, later_fragment;
	__be16 remote_port;			/* set once match_flow() has read the packet's ports */
};

/* Reads bytes of the frame. Offsets count from the network header. */
static __always_inline int load(struct __sk_buff *skb, __u32 offset, void *to, __u32 length)
{
	return bpf_skb_load_bytes_relative(skb, offset, to, length, BPF_HDR_START_NET) == 0;
}

/* What headers are read from: a frame, or at netfilter a packet. The compiler sees which. */
struct source {
	struct __sk_buff *skb;
	const struct bpf_dynptr *packet;
};

#define frame(skb_) (&(struct source){ .skb = skb_ })

static __always_inline int load_from(const struct source *from, __u32 offset, void *to, __u32 length)
{
	if (from->packet)
		return bpf_dynptr_read(to, length, from->packet, offset, 0) == 0;
	return load(from->skb, offset, to, length);
}

static __always_inline int read_ip4(const struct source *from, __u32 offset, struct packet *p)
{
	struct {
		__u8 version_ihl, tos;
		__be16 length, id, fragment;
		__u8 ttl, protocol;
		__be16 checksum;
		__be32 source, destination;
	} h;

	if (!load_from(from, offset, &h, sizeof(h)))
		return 0;
	__u32 ihl = (h.version_ihl & 15) * 4;
	if (h.version_ihl >> 4 != 4 || ihl < sizeof(h))
		return 0;
	p->family = 4;
	p->protocol = h.protocol;
	p->later_fragment = (h.fragment & bpf_htons(IP_OFFSET_MASK)) != 0;
	p->transport = offset + ihl;
	p->source[0] = h.source;
	p->source[1] = 0;
	p->destination[0] = h.destination;
	p->destination[1] = 0;
	p->remote_port = 0;
	return 1;
}

static __always_inline int read_ip6(const struct source *from, __u32 offset, struct packet *p)
{
	struct {
		__be32 version_class_flow;
		__be16 length;
		__u8 next, hop_limit;
		__u64 source[2], destination[2];
	} h;

	if (!load_from(from, offset, &h, sizeof(h)))
		return 0;
	if (bpf_ntohl(h.version_class_flow) >> 28 != 6)
		return 0;
	__u8 next = h.next;
	p->family = 6;
	p->later_fragment = 0;
	__builtin_memcpy(p->source, h.source, sizeof(h.source));
	__builtin_memcpy(p->destination, h.destination, sizeof(h.destination));
	offset += sizeof(h);

#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		__u8 e[8];

		if (next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_DESTINATION ||
		    next == NEXT_MOBILITY) {
			if (!load_from(from, offset, e, 2))
				return 0;
			offset += (e[1] + 1) * 8;
		} else if (next == NEXT_AUTHENTICATION) {
			if (!load_from(from, offset, e, 2))
				return 0;
			offset += (e[1] + 2) * 4;
		} else if (next == NEXT_FRAGMENT) {
			if (!load_from(from, offset, e, sizeof(e)))
				return 0;
			offset += sizeof(e);
			if ((e[2] << 8 | e[3]) & IP6_OFFSET_MASK) {
				next = e[0];
				p->later_fragment = 1;
				break;
			}
		} else {
			break;
		}
		next = e[0];
	}
	p->protocol = next;
	p->transport = offset;
	p->remote_port = 0;
	return 1;
}

/* Addressee of a frame by its link header. */
enum addressee { OTHERS, GROUP, US };

/* The kernel has compared the destination with the device's address (eth_type_trans in net/ethernet/eth.c). A
 * frame on a device without link headers is PACKET_HOST. An assumed address may have its own link address, which
 * the device does not know: the kernel takes its frames for another host's. No tap needs a copy of the frames
 * that this host sends (PACKET_OUTGOING). */
static __always_inline enum addressee addressee(struct __sk_buff *skb)
{
	__u8 to[ETH_ALEN];

	if (!config.assumed) {
		switch (skb->pkt_type) {
		case PACKET_HOST:
			return US;
		case PACKET_BROADCAST:
		case PACKET_MULTICAST:
			return GROUP;
		default:
			return OTHERS;
		}
	}
	if (bpf_skb_load_bytes_relative(skb, 0, to, sizeof(to), BPF_HDR_START_MAC))
		return OTHERS;
	if (to[0] & 1)
		return GROUP;
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++) {
		if (to[i] != config.assumed_mac[i])
			return OTHERS;
	}
	return US;
}

/* A tag with a VID marks another network's packet, although the device delivers the packet to its taps, too. */
static __always_inline int is_tagged(struct __sk_buff *skb)
{
	return skb->vlan_present && (skb->vlan_tci & VLAN_VID_MASK);
}

static __always_inline int same_address(const __u64 *address, const volatile __u64 *wanted)
{
	return address[0] == wanted[0] && address[1] == wanted[1];
}

static __always_inline int is_listed(__u64 list, __u64 first, __u64 second)
{
	struct entry entry = { .list = list, .value = { first, second } };

	return bpf_map_lookup_elem(&lists, &entry) != 0;
}

/* The functions are not static, so the verifier walks them once and not once per path to them. */
__noinline int is_local4(__u32 address)
{
	if (config.local4_count == 1)
		return address == config.local4;
	return config.local4_count && is_listed(LOCAL4, address, 0);
}

__noinline int is_local6(__u64 high, __u64 low)
{
	if (config.local6_count == 1)
		return high == config.local6[0] && low == config.local6[1];
	return config.local6_count && is_listed(LOCAL6, high, low);
}

static __always_inline int is_local(__u8 family, const __u64 *address)
{
	if (family == 4 && config.loopback_net && ((__u32)address[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000))
		return 1;
	return family == 4 ? is_local4(address[0]) : is_local6(address[0], address[1]);
}

static __always_inline int ports_match(const struct source *from, struct packet *p, enum side side)
{
	struct {
		__be16 source, destination;
	} h;

	if (!load_from(from, p->transport, &h, sizeof(h)))
		return 0;
	if ((side == TO_US ? h.destination : h.source) != config.local_port)
		return 0;
	p->remote_port = side == TO_US ? h.source : h.destination;
	return !config.remote_port || p->remote_port == config.remote_port;
}

static __always_inline __u64 hash_word(__u64 word, __u32 at)
{
	return (word >> 32) * config.hash_key[at] + (__u32)word * config.hash_key[at + 1];
}

/* Returns the word of a flow's hash that holds its ports, its protocol and its IP version, without which the IPv6
 * addresses that end in zeros would be those of IPv4. */
static __always_inline __u64 hash_ends(__u8 family, __u8 protocol, __be16 local_port, __be16 remote_port)
{
	return (__u64)family << 40 | (__u64)protocol << 32 | (__u32)local_port << 16 | remote_port;
}

/* Returns a flow's entry in the table, never 0. The multilinear hash is universal (Lemire, Kaser, "Strongly
 * universal string hashing is fast", 2014), so an attacker without the key cannot choose ports that share a
 * bucket. MurmurHash3's finalizer, a permutation, spreads the hash over all bits. */
static __always_inline __u64 hash_flow(__u64 remote_high, __u64 remote_low, __u64 local_high, __u64 local_low,
				       __u64 ends)
{
	__u64 h = config.hash_key[HASH_WORDS] + hash_word(ends, 8);

	h += hash_word(remote_high, 0) + hash_word(remote_low, 2);
	h += hash_word(local_high, 4) + hash_word(local_low, 6);
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccd;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53;
	h ^= h >> 33;
	return h ? h : 1;
}

static __always_inline int is_in_bucket(__u32 at, __u64 flow)
{
	struct bucket *bucket = bpf_map_lookup_elem(&flow_table, &at);
	int found = 0;

	if (!bucket)
		return 0;
#pragma unroll
	for (int i = 0; i < BUCKET; i++)
		found |= bucket->flows[i] == flow;
	return found;
}

/* Not static, so the verifier walks the function once. */
__noinline int is_known(__u64 remote_high, __u64 remote_low, __u64 local_high, __u64 local_low, __u64 ends)
{
	__u64 flow = hash_flow(remote_high, remote_low, local_high, local_low, ends);

	return is_in_bucket(flow & config.bucket_mask, flow) ||
	       is_in_bucket((flow >> 32) & config.bucket_mask, flow);
}

/* Returns whether a segment is a SYN that opens a connection. A fragment that ends before the flags is none. */
static __always_inline int is_opening(struct __sk_buff *skb, const struct packet *p)
{
	__u8 flags;

	return load(skb, p->transport + TCP_FLAGS, &flags, 1) &&
	       (flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/* The difference is signed: see is_orphan() in netkat.bpf.c. */
static __always_inline int is_unsure(void)
{
	__u64 until = unsure_until;

	return until && (__s64)(until - bpf_ktime_get_ns()) > 0;
}

/* Returns FLOW, UNSURE or FOREIGN for an arriving packet to netkat's port and address, after ports_match(). */
static __always_inline enum verdict look_up_flow(struct __sk_buff *skb, const struct packet *p)
{
	if (!config.table)
		return FLOW;
	if (is_known(p->source[0], p->source[1], p->destination[0], p->destination[1],
		     hash_ends(p->family, config.protocol, config.local_port, p->remote_port)))
		return FLOW;
	if (config.protocol != IPPROTO_TCP)
		return FOREIGN;
	if (is_opening(skb, p))
		return FLOW;
	return is_unsure() ? UNSURE : FOREIGN;
}

/* Returns FOREIGN, SHARED or FRAGMENT for a packet to any address, after read_ip4() or read_ip6(). */
static __always_inline enum verdict match_group(struct __sk_buff *skb, struct packet *p)
{
	if (p->protocol != config.protocol || p->protocol != IPPROTO_UDP)
		return FOREIGN;
	if (!p->later_fragment && !ports_match(frame(skb), p, TO_US))
		return FOREIGN;
	if (!is_listed(p->family == 4 ? GROUP4 : GROUP6, p->destination[0], p->destination[1]))
		return FOREIGN;
	return p->later_fragment ? FRAGMENT : SHARED;
}

/* Returns FOREIGN, FLOW or FRAGMENT for a packet, after read_ip4() or read_ip6(). */
static __always_inline enum verdict match_flow(const struct source *from, struct packet *p, enum side side)
{
	if (config.groups_only && side == TO_US)
		return FOREIGN;
	if (p->protocol != config.protocol)
		return FOREIGN;
	if (!p->later_fragment && !ports_match(from, p, side))
		return FOREIGN;
	if (config.remote_family &&
	    (config.remote_family != p->family ||
	     !same_address(side == TO_US ? p->source : p->destination, config.remote)))
		return FOREIGN;
	if (!is_local(p->family, side == TO_US ? p->destination : p->source))
		return FOREIGN;
	return p->later_fragment ? FRAGMENT : FLOW;
}

/* Returns CONTROL for an ICMP error that quotes a packet of netkat's. */
static __always_inline enum verdict match_error4(struct __sk_buff *skb, const struct packet *p)
{
	struct packet quoted;
	__u8 type;

	if (p->protocol != IPPROTO_ICMP || p->later_fragment || !load(skb, p->transport, &type, 1))
		return FOREIGN;
	if (type != ICMP_UNREACHABLE && type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETER_PROBLEM)
		return FOREIGN;
	if (!read_ip4(frame(skb), p->transport + ICMP_HEADER, &quoted))
		return FOREIGN;
	return match_flow(frame(skb), &quoted, FROM_US) == FLOW ? CONTROL : FOREIGN;
}

/* Returns CONTROL for neighbour discovery of netkat's address. */
static __always_inline enum verdict match_neighbour(struct __sk_buff *skb, const struct packet *p)
{
	__u64 target[2];
	__u8 type;

	if (!config.neighbours || p->protocol != NEXT_ICMP6 || p->later_fragment ||
	    !load(skb, p->transport, &type, 1))
		return FOREIGN;
	if (type != NEIGHBOUR_SOLICITATION && type != NEIGHBOUR_ADVERTISEMENT)
		return FOREIGN;
	if (!load(skb, p->transport + ICMP_HEADER, target, sizeof(target)))
		return FOREIGN;
	/* A solicitation or announcement of netkat's address, or an answer to netkat's solicitation. */
	return is_local(6, target) || is_local(6, p->destination) ? CONTROL : FOREIGN;
}

/* Returns CONTROL for an ICMPv6 error that quotes a packet of netkat's, or for neighbour discovery of its address. */
static __always_inline enum verdict match_icmp6(struct __sk_buff *skb, const struct packet *p, enum addressee to)
{
	struct packet quoted;
	__u8 type;

	if (match_neighbour(skb, p) == CONTROL)
		return CONTROL;
	if (p->protocol != NEXT_ICMP6 || p->later_fragment || !load(skb, p->transport, &type, 1))
		return FOREIGN;
	if (to != US || type < ICMP6_FIRST_ERROR || type > ICMP6_LAST_ERROR)
		return FOREIGN;
	if (!read_ip6(frame(skb), p->transport + ICMP_HEADER, &quoted))
		return FOREIGN;
	return match_flow(frame(skb), &quoted, FROM_US) == FLOW ? CONTROL : FOREIGN;
}

#include "command.h"

/* ARP, RFC 826, for IPv4 over any link with six-byte addresses. */
struct arp {
	__be16 hardware, protocol;
	__u8 hardware_length, protocol_length;
	__be16 operation;
	__u8 sender_hardware[6];
	__be32 sender;
	__u8 target_hardware[6];
	__be32 target;
} __attribute__((packed));

/* Reads ARP's sender and target as source and destination. */
static __always_inline int read_arp(struct __sk_buff *skb, struct packet *p)
{
	struct arp h;

	if (!load(skb, 0, &h, sizeof(h)))
		return 0;
	if (h.protocol != bpf_htons(ETH_P_IP) || h.hardware_length != 6 || h.protocol_length != 4)
		return 0;
	p->source[0] = h.sender;
	p->source[1] = 0;
	p->destination[0] = h.target;
	p->destination[1] = 0;
	return 1;
}

/* The packets that a program is for. The less there are, the less the kernel has to read at each start. */
enum packets {
	ANY,		/* a flow's, of both families */
	CONNECTION4,	/* those of one IPv4 connection: without a table of flows, and without groups */
	CONNECTION6,	/* those of one IPv6 connection */
	COMMAND,	/* a command's, of all ports and protocols: see command.h */
};

/* Returns the verdict on an arriving packet. Without `control` only the flow's own packets match.
 *
 * A flow's packets arrive in frames for this host alone. TCP forbids others (RFC 9293 3.9.2.3, RFC 1122 4.2.3.10:
 * tcp_v4_rcv() and tcp_v6_rcv() discard packets other than PACKET_HOST), and a datagram to one host in a frame to
 * many is forged. Requests for netkat's link address, and datagrams to groups, arrive in frames for a group. */
static __always_inline enum verdict match(struct __sk_buff *skb, int control, enum packets packets)
{
	struct packet p;
	enum verdict verdict = FOREIGN;
	enum addressee to = addressee(skb);

	if (to == OTHERS || is_tagged(skb))
		return FOREIGN;
	if (packets != CONNECTION6 && config.local4_count && skb->protocol == bpf_htons(ETH_P_IP)) {
		if ((to != US && !(packets == ANY && config.group4_count)) || !read_ip4(frame(skb), 0, &p))
			return FOREIGN;
		if (packets == ANY && config.group4_count && control) {
			verdict = match_group(skb, &p);
			if (verdict != FOREIGN)
				return verdict;
		}
		if (to != US)
			return FOREIGN;
		if (packets == COMMAND)
			return match_command(skb, &p, control);
		verdict = match_flow(frame(skb), &p, TO_US);
		if (packets == ANY && verdict == FLOW)
			return look_up_flow(skb, &p);
		return verdict == FOREIGN && control ? match_error4(skb, &p) : verdict;
	}
	if (packets != CONNECTION4 && config.local6_count && skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (!read_ip6(frame(skb), 0, &p))
			return FOREIGN;
		if (packets == COMMAND) {
			if (to == US)
				verdict = match_command(skb, &p, control);
			return verdict == FOREIGN && control ? match_neighbour(skb, &p) : verdict;
		}
		if (packets == ANY && config.group6_count && control) {
			verdict = match_group(skb, &p);
			if (verdict != FOREIGN)
				return verdict;
		}
		if (to == US)
			verdict = match_flow(frame(skb), &p, TO_US);
		if (packets == ANY && verdict == FLOW)
			return look_up_flow(skb, &p);
		return verdict == FOREIGN && control ? match_icmp6(skb, &p, to) : verdict;
	}
	if (packets != CONNECTION6 && control && config.neighbours && config.local4_count &&
	    skb->protocol == bpf_htons(ETH_P_ARP)) {
		/* An announcement of netkat's address has it as the sender's. */
		return read_arp(skb, &p) &&
		       (is_local(4, p.destination) || is_local(4, p.source)) ? CONTROL : FOREIGN;
	}
	return FOREIGN;
}

#endif
