#include "s3/client.hpp"

#include <aws/common/date_time.h>
#include <aws/s3/s3_client.h>

#include <array>

#include "crt/error.hpp"
#include "s3/operation.hpp"

namespace kumo::s3 {
namespace {

// A first handshake that fails means a wrong CA, or no TLS at all: trying again would take half a
// minute each time, as s2n delays the end of a failed connection. Once one has succeeded,
// failures are taken for passing ones and are retried.
void tls_negotiated(aws_channel_handler*, aws_channel_slot*, int error_code, void* user_data) {
  auto* watch = static_cast<TlsWatch*>(user_data);
  if (error_code == AWS_ERROR_SUCCESS) {
    watch->succeeded.store(true, std::memory_order_relaxed);
  } else if (!watch->succeeded.load(std::memory_order_relaxed)) {
    end_waiting(watch, error_code);
  }
}

}  // namespace

std::shared_ptr<Client> Client::create(const ClientOptions& options) {
  return std::shared_ptr<Client>(new Client(options));
}

Client::Client(const ClientOptions& options)
    : options_(options),
      runtime_(crt::Runtime::get(options.event_loops)),
      // The credentials chain may need TLS even where the endpoint is plain HTTP (STS, IMDS, SSO).
      tls_(crt::new_tls_context(options.ca_file, options.verify)),
      credentials_(crt::new_credentials_provider(*runtime_, options.credentials, tls_.get())) {}

Client::~Client() {
  if (!crt::Runtime::forked()) return;
  // Threads that exist only in the parent may hold the CRT's locks: leave everything as it is.
  for (auto& [endpoint, pool] : pools_) pool->abandon();
  [[maybe_unused]] const std::array<const void*, 2> kept = {credentials_.release(), tls_.release()};
}

const http::ConnectionPool& Client::pool(const std::string& endpoint) {
  std::lock_guard lock(mutex_);
  auto found = pools_.find(endpoint);
  if (found == pools_.end()) {
    aws_tls_connection_options tls{};
    const crt::Handle<aws_tls_connection_options, aws_tls_connection_options_clean_up> cleaner(
        &tls);
    aws_tls_connection_options_init_from_ctx(&tls, tls_.get());
    aws_tls_connection_options_set_callbacks(&tls, tls_negotiated, nullptr, nullptr, watch_.get());
    tls.timeout_ms = options_.connect_timeout_ms;

    http::PoolOptions pool;
    pool.bootstrap = runtime_->bootstrap();
    pool.endpoint = endpoint;
    pool.tls = &tls;
    pool.proxy = options_.proxy;
    pool.max_connections = options_.max_connections;
    pool.connect_timeout_ms = options_.connect_timeout_ms;
    pool.stall_timeout_s = options_.stall_timeout_s;
    pool.keep_alive = watch_;
    found = pools_.emplace(endpoint, std::make_unique<http::ConnectionPool>(pool)).first;
  }
  return *found->second;
}

aws_signing_config_aws Client::signing_config() const {
  aws_signing_config_aws config{};
  aws_s3_init_default_signing_config(&config, crt::cursor(options_.region), credentials_.get());
  aws_date_time_init_now(&config.date);
  const std::int64_t offset = clock_offset_ms_.load(std::memory_order_relaxed);
  if (offset != 0) {
    const auto now = static_cast<std::int64_t>(aws_date_time_as_millis(&config.date));
    aws_date_time_init_epoch_millis(&config.date, static_cast<std::uint64_t>(now + offset));
  }
  return config;
}

Client::Connections Client::connections() {
  Connections sums;
  std::lock_guard lock(mutex_);
  for (const auto& [endpoint, pool] : pools_) {
    const aws_http_manager_metrics found = pool->metrics();
    sums.idle += found.available_concurrency;
    sums.leased += found.leased_concurrency;
    sums.waiting += found.pending_concurrency_acquires;
  }
  return sums;
}

}  // namespace kumo::s3
