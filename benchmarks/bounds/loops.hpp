#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace kumo::bench {

struct Settings {
  std::uint16_t port = 0;
  std::uint64_t size = 0;   // bytes of the transfer, or of each small object
  std::uint64_t count = 0;  // of small objects
  std::string source;       // file to upload
  std::string target;       // file to download to
};

struct Loop {
  std::string_view name;
  std::string_view what;
  // Returns JSON.
  std::function<std::string(const Settings&)> run;
};

// The least work that does the job: nothing that does it can be cheaper.
[[nodiscard]] const std::vector<Loop>& loops();

}  // namespace kumo::bench
