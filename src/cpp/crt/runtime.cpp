#include "crt/runtime.hpp"

#include <aws/checksums/checksums.h>
#include <aws/common/clock.h>
#include <aws/common/common.h>
#include <aws/common/thread.h>
#include <aws/event-stream/event_stream.h>
#include <aws/io/channel.h>
#include <aws/s3/s3.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <stdexcept>

#include "crt/block_allocator.hpp"
#include "crt/error.hpp"
#include "crt/log_bridge.hpp"
#include "crt/parking.hpp"

namespace kumo::crt {
namespace {

// Messages of 512 KiB instead of 16 save calls of send and recv, over TLS too
// (docs/performance.md).
constexpr std::size_t kFragment = std::size_t{512} * 1024;

struct Process {
  std::mutex mutex;
  std::shared_ptr<Runtime> runtime;
  std::atomic<pid_t> owner{0};  // read without the lock, which a fork may have left locked
  bool ended = false;
};

Process& process() {
  static Process* state = new Process();  // leaked: outlives static destructors
  return *state;
}

}  // namespace

void init_libraries() {
  static const bool done = [] {
    aws_allocator* allocator = aws_default_allocator();
    aws_s3_library_init(allocator);
    aws_event_stream_library_init(allocator);
    LogBridge::instance().install();
    return true;
  }();
  (void)done;
}

Runtime::Runtime(std::uint16_t event_loops) {
  aws_allocator* allocator = aws_default_allocator();
  // Process-wide, and read by event loops when they start: so only before there are any.
  g_aws_channel_max_fragment_size = kFragment;
  aws_event_loop_group_options loop_options{};
  loop_options.loop_count = event_loops;
  loops_.reset(
      check_ptr(aws_event_loop_group_new(allocator, &loop_options), "starting the event loops"));

  aws_host_resolver_default_options resolver_options{};
  resolver_options.max_entries = 64;
  resolver_options.el_group = loops_.get();
  resolver_.reset(check_ptr(aws_host_resolver_new_default(allocator, &resolver_options),
                            "starting the host resolver"));

  aws_client_bootstrap_options bootstrap_options{};
  bootstrap_options.event_loop_group = loops_.get();
  bootstrap_options.host_resolver = resolver_.get();
  // Its allocator is that of connections and their messages.
  bootstrap_.reset(check_ptr(aws_client_bootstrap_new(block_allocator(), &bootstrap_options),
                             "making the client bootstrap"));
}

std::shared_ptr<Runtime> Runtime::get(std::uint16_t event_loops) {
  if (forked()) {
    throw std::runtime_error(
        "this process was forked after kumo_crt was used: its event-loop threads did not survive "
        "the fork. Use the 'spawn' start method, or make the first client after the fork");
  }
  Process& state = process();
  std::lock_guard lock(state.mutex);
  if (state.ended) throw std::runtime_error("kumo_crt was shut down: the interpreter is exiting");
  if (state.runtime == nullptr) {
    state.owner = getpid();  // first, so that a fork from here on is seen to be one
    init_libraries();
    state.runtime = std::shared_ptr<Runtime>(new Runtime(event_loops));
  }
  return state.runtime;
}

bool Runtime::forked() noexcept {
  const pid_t owner = process().owner;
  return owner != 0 && owner != getpid();
}

bool Runtime::shutdown(const Deadline& deadline) {
  if (forked()) return true;
  Process& state = process();
  std::shared_ptr<Runtime> runtime;
  {
    std::lock_guard lock(state.mutex);
    state.ended = true;
    runtime.swap(state.runtime);
  }
  if (runtime == nullptr) return true;
  // By a client that was not let go: nothing is going to end.
  const bool held = runtime.use_count() > 1;
  // 0 would mean for ever to the join.
  const std::chrono::nanoseconds left =
      std::max(held ? std::chrono::nanoseconds(0) : deadline.left(), std::chrono::nanoseconds(1));
  // Before the group is given away: it may be freed at any time then.
  const std::shared_ptr<Parking> parking = Parking::begin(runtime->event_loops(), left);
  runtime.reset();
  if (!held) {
    aws_thread_set_managed_join_timeout_ns(static_cast<std::uint64_t>(left.count()));
    if (aws_thread_join_all_managed() == AWS_OP_SUCCESS) return true;
  }
  (void)parking->wait(Deadline(kParkTime));
  return false;
}

TlsContext new_tls_context(const std::string& ca_file, bool verify) {
  aws_tls_ctx_options options;
  aws_tls_ctx_options_init_default_client(&options, aws_default_allocator());
  const Handle<aws_tls_ctx_options, aws_tls_ctx_options_clean_up> cleaner(&options);
  if (!verify) {
    aws_tls_ctx_options_set_verify_peer(&options, false);
  } else if (!ca_file.empty()) {
    const std::string doing = "loading the CA file " + ca_file;
    check(aws_tls_ctx_options_override_default_trust_store_from_path(&options, nullptr,
                                                                     ca_file.c_str()),
          doing.c_str());
  }
  return TlsContext(
      check_ptr(aws_tls_client_ctx_new(aws_default_allocator(), &options), "making a TLS context"));
}

}  // namespace kumo::crt
