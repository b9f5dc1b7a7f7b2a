// TLS records in few, large writes, and certificates read once.
//
// aws-c-io leaves s2n at its defaults: records of about 8 KiB, each sent by itself. Two public
// setters of s2n change that, but aws-c-io gives no access to its s2n objects. And s2n reads all
// certificates of the system (7 ms) into a default configuration that nobody uses and into every
// new one, to which aws-c-io then gives the CAs that are to be trusted: it reads the system's
// itself, or fails. Where s2n is linked statically, the linker leads their calls through here
// (-Wl,--wrap, see CMakeLists.txt); elsewhere this file is empty, and TLS works as aws-c-io has it.
// What it is worth is in docs/performance.md.
#include "kumo_build_config.h"

#if KUMO_TUNE_S2N

#include <s2n.h>

#include <cstdint>

namespace {

// As much as a channel's message takes: 16 records of 16 KiB with their overhead.
constexpr std::uint32_t kSendBuffer = 144 * 1024;

}  // namespace

// The names are the linker's.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" {

s2n_config* __real_s2n_config_new();
s2n_config* __wrap_s2n_config_new();
int __real_s2n_connection_set_config(s2n_connection* connection, s2n_config* config);
int __wrap_s2n_connection_set_config(s2n_connection* connection, s2n_config* config);
int __wrap_X509_STORE_set_default_paths(void* store);

s2n_config* __wrap_s2n_config_new() {
  s2n_config* config = __real_s2n_config_new();
  // Refused or not, the configuration is good.
  if (config != nullptr) (void)s2n_config_set_send_buffer_size(config, kSendBuffer);
  return config;
}

int __wrap_s2n_connection_set_config(s2n_connection* connection, s2n_config* config) {
  const int result = __real_s2n_connection_set_config(connection, config);
  if (result == 0) (void)s2n_connection_prefer_throughput(connection);
  return result;
}

int __wrap_X509_STORE_set_default_paths(void* /*store*/) { return 1; }  // as if there were none

}  // extern "C"
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

#endif
