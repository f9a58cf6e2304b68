/*
 * Compiles the eBPF programs' matcher for the host and runs it on frames in memory.
 *
 * In the kernel `config` is a constant; here it changes with every input. An empty macro removes `const` from
 * flow.h. Its system headers come first, so they keep theirs.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <string.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define const
#include "flow.h"
#undef const

static const unsigned char *link;
static __u32 link_length;

/* Acts as the kernel's helper (net/core/filter.c): reads nothing beyond the end, and writes zeros on failure. */
long bpf_skb_load_bytes_relative(const void *skb, __u32 offset, void *to, __u32 length, __u32 start)
{
	__u32 begin = start == BPF_HDR_START_NET ? ETH_HLEN : 0;

	if (offset > link_length - begin || length > link_length - begin - offset) {
		memset(to, 0, length);
		return -1;
	}
	memcpy(to, link + begin + offset, length);
	return 0;
}

/* netkat's guard at netfilter has packets; frames are enough to compare the matcher. */
long bpf_dynptr_read(void *to, __u64 length, const struct bpf_dynptr *packet, __u64 offset, __u64 flags)
{
	(void)to, (void)length, (void)packet, (void)offset, (void)flags;
	return -1;
}

/* A flow table, smaller than netkat's, that keeps every flow entered. */
#define BUCKETS 4
static struct bucket buckets[BUCKETS];

/* The programs' lists. */
#define ENTRIES 64
static struct entry entries[ENTRIES];
static __u32 entry_count;

static void enter(__u64 list, const __u8 *addresses, __u32 count, __u32 length)
{
	for (__u32 i = 0; i < count && entry_count < ENTRIES; i++) {
		struct entry *entry = &entries[entry_count++];

		memset(entry, 0, sizeof(*entry));
		entry->list = list;
		memcpy(entry->value, addresses + i * length, length);
	}
}

void *bpf_map_lookup_elem(void *map, const void *key)
{
	if (map == &lists) {
		for (__u32 i = 0; i < entry_count; i++) {
			if (!memcmp(&entries[i], key, sizeof(entries[i])))
				return &entries[i];
		}
		return NULL;
	}
	__u32 at = *(const __u32 *)key;

	return at < BUCKETS ? &buckets[at] : NULL;
}

/* Returns a fixed time, so `unsure_until` in an hour never expires. */
__u64 bpf_ktime_get_ns(void)
{
	return 1000;
}

/* Returns a frame with an Ethernet header as the tap of a device with the link address zero sees it: the kernel has
 * removed the first tag and compared the addresses (eth_type_trans in net/ethernet/eth.c). */
static struct __sk_buff buffer_of(const unsigned char *frame, __u32 length, __u16 tag)
{
	struct __sk_buff skb = {};

	memcpy(&skb.protocol, frame + 12, 2);
	skb.vlan_present = tag != 0;
	skb.vlan_tci = tag;
	if (!memcmp(frame, "\0\0\0\0\0", ETH_ALEN))
		skb.pkt_type = PACKET_HOST;
	else if (frame[0] & 1)
		skb.pkt_type = PACKET_MULTICAST;
	else
		skb.pkt_type = PACKET_OTHERHOST;
	link = frame;
	link_length = length;
	return skb;
}

void matcher_flow(__u8 protocol, __u16 local_port, __u16 remote_port, __u8 remote_family, const __u8 *remote,
		  const __u8 *local4, __u32 count4, const __u8 *local6, __u32 count6, __u8 loopback_net, __u8 neighbours,
		  const __u8 *assumed)
{
	memset((void *)&config, 0, sizeof(config));
	config.protocol = protocol;
	config.local_port = bpf_htons(local_port);
	config.remote_port = bpf_htons(remote_port);
	config.remote_family = remote_family;
	memcpy((void *)config.remote, remote, remote_family == 4 ? 4 : 16);
	config.local4_count = count4;
	config.local6_count = count6;
	if (count4)
		memcpy((void *)&config.local4, local4, 4);
	if (count6)
		memcpy((void *)config.local6, local6, 16);
	entry_count = 0;
	enter(LOCAL4, local4, count4, 4);
	enter(LOCAL6, local6, count6, 16);
	config.loopback_net = loopback_net;
	config.neighbours = neighbours;
	memset(buckets, 0, sizeof(buckets));
	unsure_until = 0;
	config.assumed = assumed != 0;
	if (assumed)
		memcpy((void *)config.assumed_mac, assumed, ETH_ALEN);
}

void matcher_groups(const __u8 *group4, __u32 count4, const __u8 *group6, __u32 count6, __u8 only)
{
	config.group4_count = count4;
	config.group6_count = count6;
	enter(GROUP4, group4, count4, 4);
	enter(GROUP6, group6, count6, 16);
	config.groups_only = only;
}

/* Lets the flow table decide which packets are netkat's. */
void matcher_table(int unsure)
{
	config.table = 1;
	config.bucket_mask = BUCKETS - 1;
	for (__u32 i = 0; i <= HASH_WORDS; i++)
		config.hash_key[i] = 0x9e3779b97f4a7c15 * (2 * i + 1);
	unsure_until = unsure ? 3600000000000 : 0;
}

/* Enters a flow. IPv4 addresses have 4 bytes, followed by zeros. */
void matcher_know(__u8 family, const __u8 *remote, const __u8 *local, __u16 remote_port)
{
	__u64 r[2], l[2];
	__u64 flow;

	memcpy(r, remote, sizeof(r));
	memcpy(l, local, sizeof(l));
	flow = hash_flow(r[0], r[1], l[0], l[1],
			 hash_ends(family, config.protocol, config.local_port, bpf_htons(remote_port)));
	for (int i = 0; i < BUCKET; i++) {
		__u64 *slot = &buckets[flow & config.bucket_mask].flows[i];

		if (!*slot || *slot == flow) {
			*slot = flow;
			return;
		}
	}
}

/* Returns the verdict on an arriving frame; without `control` the guard's. */
int matcher_arriving(const unsigned char *frame, __u32 length, __u16 tag, int control)
{
	struct __sk_buff skb = buffer_of(frame, length, tag);

	return match(&skb, control, ANY);
}

/* Returns whether a departing frame belongs to the flow, which the loopback program checks first. */
int matcher_departing(const unsigned char *frame, __u32 length)
{
	struct __sk_buff skb = buffer_of(frame, length, 0);
	struct packet p;

	return config.local4_count && skb.protocol == bpf_htons(ETH_P_IP) && read_ip4(frame(&skb), 0, &p) &&
	       match_flow(frame(&skb), &p, FROM_US) == FLOW;
}
