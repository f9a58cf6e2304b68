// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Decides which packets are a command's (netkat --run): flows of all ports and protocols at once.
 *
 * netkat enters a flow into the flow table before its first packet leaves, so an arriving packet is the
 * command's if the table has it, or if it opens a connection to a published port. All else is the kernel's or a
 * forwarded connection's, whatever its ports.
 *
 * A UDP flow has no remote port in the table: a server may answer from another one (TFTP, RFC 1350). An echo
 * request's identifier stands for the local port. Answers to echo requests and ICMP errors go to both stacks.
 */
#ifndef NETKAT_COMMAND_H
#define NETKAT_COMMAND_H

static __always_inline int is_icmp(const struct packet *p)
{
	return p->protocol == (p->family == 4 ? IPPROTO_ICMP : NEXT_ICMP6);
}

/* Returns whether a packet that netkat has sent, as an ICMP error quotes it, is of a flow in the table. */
static __always_inline int is_sent(struct __sk_buff *skb, const struct packet *p)
{
	__be16 h[4] = {};
	__u64 ends;

	if (p->later_fragment)
		return 0;
	if (p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP) {
		if (!load(skb, p->transport, h, 4))
			return 0;
		ends = hash_ends(p->family, p->protocol, h[0], p->protocol == IPPROTO_TCP ? h[1] : 0);
	} else if (is_icmp(p)) {
		if (!load(skb, p->transport, h, 8))
			return 0;
		ends = hash_ends(p->family, p->protocol, h[2], 0);
	} else {
		return 0;
	}
	return is_known(p->destination[0], p->destination[1], p->source[0], p->source[1], ends);
}

static __always_inline enum verdict match_command_icmp(struct __sk_buff *skb, const struct packet *p)
{
	struct packet quoted;
	__be16 h[4] = {};

	if (!load(skb, p->transport, h, sizeof(h)))
		return FOREIGN;
	__u8 type = *(__u8 *)h;
	if (type == (p->family == 4 ? ICMP_ECHO_REPLY : ICMP6_ECHO_REPLY))
		return is_known(p->source[0], p->source[1], p->destination[0], p->destination[1],
				hash_ends(p->family, p->protocol, h[2], 0)) ? CONTROL : FOREIGN;
	if (p->family == 4) {
		if (type != ICMP_UNREACHABLE && type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETER_PROBLEM)
			return FOREIGN;
		if (!read_ip4(frame(skb), p->transport + ICMP_HEADER, &quoted))
			return FOREIGN;
	} else {
		if (type < ICMP6_FIRST_ERROR || type > ICMP6_LAST_ERROR)
			return FOREIGN;
		if (!read_ip6(frame(skb), p->transport + ICMP_HEADER, &quoted))
			return FOREIGN;
	}
	return is_sent(skb, &quoted) ? CONTROL : FOREIGN;
}

/* Returns the verdict on a packet that arrives for this host, after read_ip4() or read_ip6(). */
static __always_inline enum verdict match_command(struct __sk_buff *skb, const struct packet *p, int control)
{
	struct {
		__be16 source, destination;
	} h = {};

	if (p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP && !is_icmp(p))
		return FOREIGN;
	if (p->later_fragment)
		return is_local(p->family, p->destination) ? FRAGMENT : FOREIGN;
	if (is_icmp(p))
		return control ? match_command_icmp(skb, p) : FOREIGN;
	if (!load(skb, p->transport, &h, sizeof(h)))
		return FOREIGN;
	if (is_known(p->source[0], p->source[1], p->destination[0], p->destination[1],
		     hash_ends(p->family, p->protocol, h.destination, p->protocol == IPPROTO_TCP ? h.source : 0)))
		return FLOW;
	if (!config.published_count || !is_listed(PUBLISHED, p->protocol, h.destination) ||
	    !is_local(p->family, p->destination))
		return FOREIGN;
	return p->protocol == IPPROTO_UDP || is_opening(skb, p) ? FLOW : FOREIGN;
}

#endif
