#pragma once

#include <aws/auth/credentials.h>
#include <aws/io/tls_channel_handler.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "crt/handle.hpp"
#include "crt/runtime.hpp"

namespace kumo::crt {

struct CredentialsOptions {
  bool anonymous = false;
  std::optional<std::string> access_key_id;
  std::optional<std::string> secret_access_key;
  std::optional<std::string> session_token;
  std::optional<std::string> profile;
};

// Fixed credentials, none, those of a profile, or of the AWS default chain, in the order of what is
// set; kept, and fetched again before they expire.
//
// Well before that (`kEarly`) a fetch begins beside the requests, which go on with what there is.
// If it fails, it is tried again. Only shortly before the end (`kLast`) do requests wait for a
// fetch, and fail with it; what has to be cleaned up after them can still be signed then. The AWS
// libraries' own cache drops credentials that are still good when a fetch fails, and runs a
// credential process on the thread that asks, which may be an event loop's.
//
// Threads: all of it from any. A fetch has a thread of its own, managed by the CRT: processes and
// name servers take as long as they like. A fetch keeps this object.
class Credentials : public std::enable_shared_from_this<Credentials> {
  struct Private {};

 public:
  using Value = Handle<const aws_credentials, aws_credentials_release>;
  struct Issued {
    Value value;                   // null: there are none, for this reason:
    std::uint64_t generation = 0;  // counts fetches
    int error_code = 0;
    std::string error_text;
  };
  using Waiter = std::function<void(Issued)>;  // must not throw

  // Throws Error where the profile cannot be used.
  static std::shared_ptr<Credentials> create(std::shared_ptr<Runtime> runtime,
                                             const CredentialsOptions& options, aws_tls_ctx* tls);
  Credentials(Private, std::shared_ptr<Runtime> runtime, const CredentialsOptions& options,
              aws_tls_ctx* tls);
  ~Credentials();
  Credentials(const Credentials&) = delete;
  Credentials& operator=(const Credentials&) = delete;

  // Those there are, if they hold for a while; else nothing: see `wait`.
  [[nodiscard]] std::optional<Issued> issue();
  // Calls `waiter` once, with fetched ones, on any thread, also before this returns. With `any`,
  // what there is will do where the fetch fails.
  void wait(Waiter waiter, bool any);
  // The service says that those of this fetch have expired.
  void expired(std::uint64_t generation);

 private:
  struct Waiting {
    Waiter waiter;
    bool any;
  };
  using Provider = Handle<aws_credentials_provider, aws_credentials_provider_release>;

  [[nodiscard]] Provider new_source() const;
  [[nodiscard]] Issued current() const;  // with the mutex
  void fetch() noexcept;
  void fetch_here();  // on the thread of a fetch
  void fetched(aws_credentials* found, int error_code, std::string error_text) noexcept;

  const std::shared_ptr<Runtime> runtime_;
  const CredentialsOptions options_;
  const Handle<aws_tls_ctx, aws_tls_ctx_release> tls_;
  Provider source_;  // of the one fetch that there may be

  std::mutex mutex_;  // guards the rest
  Value value_;
  std::uint64_t generation_ = 0;
  double renew_at_ = 0;  // seconds of the system's clock, as the next two
  double over_at_ = 0;
  double expires_at_ = 0;
  bool expired_ = false;  // as the service says
  bool fetching_ = false;
  std::vector<Waiting> waiting_;
};

}  // namespace kumo::crt
