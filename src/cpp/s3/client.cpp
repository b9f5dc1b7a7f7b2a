#include "s3/client.hpp"

#include <aws/auth/signing_config.h>
#include <aws/http/connection.h>

#include <array>
#include <condition_variable>
#include <mutex>

#include "crt/error.hpp"
#include "s3/operation.hpp"

namespace kumo::s3 {
namespace {

struct Live {
  std::mutex mutex;
  std::condition_variable changed;
  int count = 0;
};

Live& live() {
  static Live* state = new Live();  // leaked: shutdown callbacks may come very late
  return *state;
}

// A first handshake that fails means a wrong CA, or no TLS at all: trying again would take half a
// minute each time, as s2n delays the end of a failed connection. Once one has succeeded,
// failures are taken for passing ones and are retried.
void tls_negotiated(aws_channel_handler*, aws_channel_slot*, int error_code, void* user_data) {
  auto* watch = static_cast<TlsWatch*>(user_data);
  if (error_code == AWS_ERROR_SUCCESS) {
    watch->succeeded.store(true, std::memory_order_relaxed);
  } else if (!watch->succeeded.load(std::memory_order_relaxed)) {
    abandon_waiting(watch, error_code);
  }
}

void client_gone(void* user_data) {
  const std::unique_ptr<TlsWatch> watch(static_cast<TlsWatch*>(user_data));
  Live& state = live();
  {
    std::lock_guard lock(state.mutex);
    --state.count;
  }
  state.changed.notify_all();
}

}  // namespace

int live_clients() {
  Live& state = live();
  std::lock_guard lock(state.mutex);
  return state.count;
}

bool wait_for_clients(std::chrono::milliseconds timeout) {
  Live& state = live();
  std::unique_lock lock(state.mutex);
  return state.changed.wait_for(lock, timeout, [&] { return state.count == 0; });
}

std::shared_ptr<Client> Client::create(const ClientOptions& options) {
  return std::shared_ptr<Client>(new Client(options));
}

Client::Client(const ClientOptions& options)
    : runtime_(crt::Runtime::get(options.event_loops, options.tls)),
      buffers_(options.memory_limit) {
  // The credentials chain may need TLS even where the endpoint is plain HTTP (STS, IMDS, SSO).
  tls_ = crt::new_tls_context(options.ca_file, options.verify);
  credentials_ = crt::new_credentials_provider(*runtime_, options.credentials, tls_.get());
  retries_ = crt::new_retry_strategy(*runtime_, options.max_attempts);

  aws_signing_config_aws signing;
  aws_s3_init_default_signing_config(&signing, crt::cursor(options.region), credentials_.get());

  aws_tls_connection_options tls_connection{};
  const crt::Handle<aws_tls_connection_options, aws_tls_connection_options_clean_up> cleaner(
      &tls_connection);
  aws_tls_connection_options_init_from_ctx(&tls_connection, tls_.get());

  aws_http_connection_monitoring_options monitoring{};
  monitoring.minimum_throughput_bytes_per_second = 1;
  monitoring.allowable_throughput_failure_interval_seconds = options.stall_timeout_s;

  aws_s3_client_config config{};
  config.client_bootstrap = runtime_->bootstrap();
  config.region = crt::cursor(options.region);
  config.signing_config = &signing;
  config.tls_mode = options.tls ? AWS_MR_TLS_ENABLED : AWS_MR_TLS_DISABLED;
  if (options.tls) config.tls_connection_options = &tls_connection;
  config.part_size = options.part_size;
  config.max_active_connections_override = options.max_connections;
  config.retry_strategy = retries_.get();
  config.connect_timeout_ms = options.connect_timeout_ms;
  if (options.stall_timeout_s != 0) config.monitoring_options = &monitoring;
  // aws-c-s3 refuses less than 1 GiB; uploads do not use its buffers, downloads only for parts
  // that are in flight, which max_active_connections bounds.
  config.throughput_target_gbps = 10.0;
  config.memory_limit_in_bytes = std::uint64_t{1} << 30;
  auto watch = std::make_unique<TlsWatch>();
  aws_tls_connection_options_set_callbacks(&tls_connection, tls_negotiated, nullptr, nullptr,
                                           watch.get());
  config.shutdown_callback = client_gone;
  config.shutdown_callback_user_data = watch.get();

  {
    std::lock_guard lock(live().mutex);
    ++live().count;
  }
  client_ = aws_s3_client_new(aws_default_allocator(), &config);
  watch_ = watch.release();
  if (client_ == nullptr) {
    const int code = aws_last_error();
    client_gone(watch_);
    throw crt::Error(code, "making the S3 client");
  }
}

Client::~Client() {
  if (crt::Runtime::forked()) {
    // Threads that exist only in the parent may hold the CRT's locks: leave everything as it is.
    [[maybe_unused]] const std::array<const void*, 3> kept = {
        retries_.release(), credentials_.release(), tls_.release()};
    return;
  }
  aws_s3_client_release(client_);
}

}  // namespace kumo::s3
