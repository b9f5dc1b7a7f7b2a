#include "crt/credentials.hpp"

#include <aws/auth/auth.h>
#include <aws/common/thread.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <limits>
#include <utility>

#include "crt/error.hpp"

namespace kumo::crt {
namespace {

// Seconds. Of short-lived credentials, fractions of their life.
constexpr double kEarly = 300;
constexpr double kEarlyPart = 0.5;
constexpr double kLast = 15;
constexpr double kLastPart = 0.1;
// Ones that do not say when they expire; a file may have changed.
constexpr double kLookAgain = 900;
// After a fetch that failed, while there are good ones.
constexpr double kTryAgain = 10;
// For how long those are kept that have expired when they come: the clock may be wrong.
constexpr double kLeast = 2;
constexpr double kNever = std::numeric_limits<double>::infinity();

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string utc(double seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  std::string text(32, '\0');
  text.resize(::gmtime_r(&time, &parts) == nullptr
                  ? 0
                  : std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts));
  return text;
}

Credentials::Value copy(const aws_credentials* value) {
  aws_credentials_acquire(value);
  return Credentials::Value(value);
}

// What the AWS libraries tell of a provider's failure may be any error that came before it.
int credentials_error(int code) {
  constexpr int kFirst = AWS_ERROR_ENUM_BEGIN_RANGE(AWS_C_AUTH_PACKAGE_ID);
  constexpr int kEnd = AWS_ERROR_ENUM_END_RANGE(AWS_C_AUTH_PACKAGE_ID);
  return code >= kFirst && code <= kEnd ? code : AWS_AUTH_SIGNING_NO_CREDENTIALS;
}

}  // namespace

std::shared_ptr<Credentials> Credentials::create(std::shared_ptr<Runtime> runtime,
                                                 const CredentialsOptions& options,
                                                 aws_tls_ctx* tls) {
  return std::make_shared<Credentials>(Private(), std::move(runtime), options, tls);
}

Credentials::Credentials(Private, std::shared_ptr<Runtime> runtime,
                         const CredentialsOptions& options, aws_tls_ctx* tls)
    : runtime_(std::move(runtime)), options_(options), tls_(aws_tls_ctx_acquire(tls)) {
  aws_allocator* allocator = aws_default_allocator();
  if (options.anonymous) {
    value_.reset(check_ptr(aws_credentials_new_anonymous(allocator), "making credentials"));
  } else if (options.access_key_id && options.secret_access_key) {
    value_.reset(check_ptr(
        aws_credentials_new(
            allocator, cursor(*options.access_key_id), cursor(*options.secret_access_key),
            options.session_token ? cursor(*options.session_token) : aws_byte_cursor{}, UINT64_MAX),
        "making credentials"));
  } else {
    source_ = new_source();
    return;
  }
  renew_at_ = over_at_ = expires_at_ = kNever;
}

Credentials::~Credentials() = default;

Credentials::Provider Credentials::new_source() const {
  aws_allocator* allocator = aws_default_allocator();
  if (options_.profile) {
    aws_credentials_provider_profile_options profile{};
    profile.profile_name_override = cursor(*options_.profile);
    profile.bootstrap = runtime_->bootstrap();
    profile.tls_ctx = tls_.get();
    Provider made(aws_credentials_provider_new_profile(allocator, &profile));
    if (made == nullptr) throw_last(("reading the profile " + *options_.profile).c_str());
    return made;
  }
  aws_credentials_provider_chain_default_options chain{};
  chain.bootstrap = runtime_->bootstrap();
  chain.tls_ctx = tls_.get();
  return Provider(check_ptr(aws_credentials_provider_new_chain_default(allocator, &chain),
                            "making the credentials provider"));
}

Credentials::Issued Credentials::current() const {
  Issued issued;
  issued.value = copy(value_.get());
  issued.generation = generation_;
  return issued;
}

std::optional<Credentials::Issued> Credentials::issue() {
  const double time = now();
  std::optional<Issued> issued;
  bool start = false;
  {
    const std::lock_guard lock(mutex_);
    if (value_ == nullptr || expired_ || time >= over_at_) return std::nullopt;
    issued = current();
    if (time >= renew_at_ && !fetching_) start = fetching_ = true;
  }
  if (start) fetch();
  return issued;
}

void Credentials::wait(Waiter waiter, bool any) {
  {
    std::unique_lock lock(mutex_);
    if (value_ != nullptr && !expired_ && now() < over_at_) {  // fetched meanwhile
      Issued issued = current();
      lock.unlock();
      return waiter(std::move(issued));
    }
    waiting_.push_back({std::move(waiter), any});
    if (std::exchange(fetching_, true)) return;
  }
  fetch();
}

void Credentials::expired(std::uint64_t generation) {
  const std::lock_guard lock(mutex_);
  if (generation == generation_ && generation != 0) expired_ = true;
}

void Credentials::fetch() noexcept {
  int code = AWS_ERROR_OOM;
  try {
    auto self = std::make_unique<std::shared_ptr<Credentials>>(shared_from_this());
    aws_thread thread;
    aws_thread_init(&thread, aws_default_allocator());
    aws_thread_options options = *aws_default_thread_options();
    options.join_strategy = AWS_TJS_MANAGED;
    options.name = cursor("kumo_crt-creds");
    const auto run = [](void* owned) {
      const std::unique_ptr<std::shared_ptr<Credentials>> kept(
          static_cast<std::shared_ptr<Credentials>*>(owned));
      (*kept)->fetch_here();
    };
    if (aws_thread_launch(&thread, run, self.get(), &options) == AWS_OP_SUCCESS) {
      [[maybe_unused]] const auto* owned = self.release();  // by the thread
      return;
    }
    code = aws_last_error();
  } catch (const std::bad_alloc&) {
    // As said already.
  }
  fetched(nullptr, code, "starting a thread: " + error_text(code));
}

void Credentials::fetch_here() {
  try {
    // A new one each time: it may have cached what is wanted no more, or read a file that has
    // changed since.
    if (source_ == nullptr || generation_ != 0) source_ = new_source();
  } catch (const Error& error) {
    return fetched(nullptr, error.code(), error.what());
  }
  auto self = std::make_unique<std::shared_ptr<Credentials>>(shared_from_this());
  const auto got = [](aws_credentials* found, int code, void* owned) {
    const std::unique_ptr<std::shared_ptr<Credentials>> kept(
        static_cast<std::shared_ptr<Credentials>*>(owned));
    (*kept)->fetched(found, code, found == nullptr ? error_text(credentials_error(code)) : "");
  };
  aws_reset_error();
  if (aws_credentials_provider_get_credentials(source_.get(), got, self.get()) == AWS_OP_SUCCESS) {
    [[maybe_unused]] const auto* owned = self.release();  // by the callback
    return;
  }
  fetched(nullptr, aws_last_error(), error_text(aws_last_error()));
}

void Credentials::fetched(aws_credentials* found, int error_code, std::string error_text) noexcept {
  std::vector<Waiting> waiting;
  Issued issued;
  Value old;
  {
    const std::lock_guard lock(mutex_);
    const double time = now();
    if (found != nullptr) {
      old = std::exchange(value_, copy(found));
      ++generation_;
      expired_ = false;
      const std::uint64_t said = aws_credentials_get_expiration_timepoint_seconds(found);
      expires_at_ = said == UINT64_MAX ? kNever : static_cast<double>(said);
      const double life = std::max(expires_at_ - time, kLeast);
      renew_at_ =
          life == kNever ? time + kLookAgain : time + life - std::min(kEarly, life * kEarlyPart);
      over_at_ = life == kNever ? kNever : time + life - std::min(kLast, life * kLastPart);
    } else {
      renew_at_ = time + kTryAgain;
      issued.error_code = credentials_error(error_code);
      issued.error_text = std::move(error_text);
      if (value_ != nullptr && expires_at_ != kNever) {
        issued.error_text += "; those had before expire at " + utc(expires_at_);
      }
    }
    fetching_ = false;
    waiting.swap(waiting_);
  }
  for (auto& [waiter, any] : waiting) {
    Issued one;
    {
      const std::lock_guard lock(mutex_);
      if (value_ != nullptr && (found != nullptr || any)) one = current();
    }
    if (one.value == nullptr) {
      one.error_code = issued.error_code;
      one.error_text = issued.error_text;
    }
    waiter(std::move(one));
  }
}

}  // namespace kumo::crt
