#include "store.hpp"

#include <cstdio>
#include <ctime>

#include "http.hpp"

namespace kumo::bench {
namespace {

constexpr std::string_view kGenerated = "generated/";
constexpr std::int64_t kGeneratedModified = 1767225600;  // 2026-01-01

}  // namespace

const Object& Store::put(std::string path, std::uint64_t size, std::size_t parts) {
  Object& object = objects_[std::move(path)];
  object = {size, std::time(nullptr), new_etag(parts)};
  return object;
}

std::optional<Object> Store::find(const std::string& path) const {
  if (const auto found = objects_.find(path); found != objects_.end()) return found->second;
  const auto slash = path.find('/');
  std::string_view key(path);
  key.remove_prefix(slash == std::string::npos ? path.size() : slash + 1);
  if (!key.starts_with(kGenerated)) return std::nullopt;
  key.remove_prefix(kGenerated.size());
  const auto size = to_number(key.substr(0, key.find('/')));
  if (!size) return std::nullopt;
  char etag[64];
  std::snprintf(etag, sizeof etag, "%032llx-1", static_cast<unsigned long long>(*size));
  return Object{*size, kGeneratedModified, etag};
}

std::string Store::begin_upload() {
  char id[32];
  std::snprintf(id, sizeof id, "upload-%llu", static_cast<unsigned long long>(++counter_));
  uploads_.emplace(id, Upload{});
  return id;
}

Upload* Store::upload(std::string_view id) {
  const auto found = uploads_.find(id);
  return found == uploads_.end() ? nullptr : &found->second;
}

void Store::end_upload(std::string_view id) {
  if (const auto found = uploads_.find(id); found != uploads_.end()) uploads_.erase(found);
}

std::string Store::new_etag(std::size_t parts) {
  // The suffix says that this is no MD5, which it is not: nothing computes one.
  char text[64];
  std::snprintf(text, sizeof text, "%032llx-%zu", static_cast<unsigned long long>(++counter_),
                parts);
  return text;
}

}  // namespace kumo::bench
