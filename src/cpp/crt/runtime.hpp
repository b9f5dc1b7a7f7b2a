#pragma once

#include <aws/io/channel_bootstrap.h>
#include <aws/io/event_loop.h>
#include <aws/io/host_resolver.h>
#include <aws/io/tls_channel_handler.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "crt/deadline.hpp"
#include "crt/handle.hpp"

namespace kumo::crt {

using EventLoopGroup = Handle<aws_event_loop_group, aws_event_loop_group_release>;
using HostResolver = Handle<aws_host_resolver, aws_host_resolver_release>;
using ClientBootstrap = Handle<aws_client_bootstrap, aws_client_bootstrap_release>;
using TlsContext = Handle<aws_tls_ctx, aws_tls_ctx_release>;

// The library, its event loops, resolver and bootstrap: one per process, made when the first
// client is. Every client keeps a shared_ptr; `shutdown` at interpreter exit ends it.
class Runtime {
 public:
  // Returns the process's runtime, creating it with `event_loops` loops (0: one for two CPUs) on
  // the first call; later calls ignore the argument. Throws after
  // `shutdown`, and in a forked child (the event-loop threads exist only in the parent).
  static std::shared_ptr<Runtime> get(std::uint16_t event_loops);

  // What stopping event loops takes that could not be ended (much less, unless one is blocked).
  static constexpr std::chrono::milliseconds kParkTime{250};

  // Drops the process's runtime and, if nothing else holds it, waits for its threads to end.
  // Returns false if they did not before `deadline`. What event loops are left then are stopped
  // where they are, for good, in another `kParkTime` at most (crt/parking.hpp).
  static bool shutdown(const Deadline& deadline);

  // Whether this process is a fork of the one that made the runtime.
  static bool forked() noexcept;

  [[nodiscard]] aws_client_bootstrap* bootstrap() const noexcept { return bootstrap_.get(); }
  [[nodiscard]] aws_event_loop_group* event_loops() const noexcept { return loops_.get(); }

  ~Runtime() = default;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

 private:
  explicit Runtime(std::uint16_t event_loops);

  // Destroyed in reverse order: the bootstrap before what it stands on.
  EventLoopGroup loops_;
  HostResolver resolver_;
  ClientBootstrap bootstrap_;
};

// Makes the CRT libraries ready (idempotent): error texts, log subjects, crypto.
void init_libraries();

// A client TLS context. `ca_file` empty: the system's trust store. Throws crt::Error.
TlsContext new_tls_context(const std::string& ca_file, bool verify);

}  // namespace kumo::crt
