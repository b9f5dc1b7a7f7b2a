#pragma once

#include <aws/cal/hmac.h>

#include <array>
#include <cstdint>
#include <string_view>

#include "crt/handle.hpp"
#include "crypto/secret.hpp"

namespace kumo::crypto {

using Mac = std::array<std::uint8_t, AWS_SHA256_HMAC_LEN>;

// HMAC-SHA256 of what is given piece by piece. Throws crt::Error.
class Hmac {
 public:
  explicit Hmac(const Secret& key);

  void update(const void* data, std::size_t size);
  // Nothing may follow.
  void finish(std::uint8_t* into);

 private:
  crt::Handle<aws_hmac, aws_hmac_destroy> hmac_;
};

// HKDF-Expand (RFC 5869) with SHA-256, to one block: from a key that is uniformly random already, a
// key for one purpose. `context` goes behind the purpose's name.
void derive(const Secret& from, std::string_view purpose, std::string_view context, Secret& into);

}  // namespace kumo::crypto
