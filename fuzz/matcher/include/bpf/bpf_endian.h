/* The parts of libbpf's header of this name that flow.h needs, for the host. */
#include <asm/byteorder.h>
#define bpf_htons(x) __cpu_to_be16(x)
#define bpf_htonl(x) __cpu_to_be32(x)
#define bpf_ntohl(x) __be32_to_cpu(x)
