#include <aws/common/cpuid.h>

#include "bind/bind.hpp"
#include "kumo_build_config.h"

namespace py = pybind11;

namespace kumo::bind {
namespace {

py::list cpu_features() {
  py::list found;
  const auto add = [&](aws_cpu_feature_name feature, const char* name) {
    if (aws_cpu_has_feature(feature)) found.append(name);
  };
  add(AWS_CPU_FEATURE_SSE_4_2, "sse4.2");
  add(AWS_CPU_FEATURE_CLMUL, "pclmulqdq");
  add(AWS_CPU_FEATURE_AVX2, "avx2");
  add(AWS_CPU_FEATURE_AVX512, "avx512");
  add(AWS_CPU_FEATURE_VPCLMULQDQ, "vpclmulqdq");
  add(AWS_CPU_FEATURE_ARM_CRC, "arm-crc");
  add(AWS_CPU_FEATURE_ARM_CRYPTO, "arm-crypto");
  return found;
}

py::dict build_info() {
  py::dict libraries;
  libraries["aws-c-auth"] = KUMO_VERSION_AWS_C_AUTH;
  libraries["aws-c-cal"] = KUMO_VERSION_AWS_C_CAL;
  libraries["aws-c-common"] = KUMO_VERSION_AWS_C_COMMON;
  libraries["aws-c-compression"] = KUMO_VERSION_AWS_C_COMPRESSION;
  libraries["aws-c-event-stream"] = KUMO_VERSION_AWS_C_EVENT_STREAM;
  libraries["aws-c-http"] = KUMO_VERSION_AWS_C_HTTP;
  libraries["aws-c-io"] = KUMO_VERSION_AWS_C_IO;
  libraries["aws-c-mqtt"] = KUMO_VERSION_AWS_C_MQTT;
  libraries["aws-c-s3"] = KUMO_VERSION_AWS_C_S3;
  libraries["aws-c-sdkutils"] = KUMO_VERSION_AWS_C_SDKUTILS;
  libraries["aws-checksums"] = KUMO_VERSION_AWS_CHECKSUMS;
  libraries["aws-lc"] = KUMO_VERSION_AWS_LC;
  libraries["s2n"] = KUMO_VERSION_S2N;

  py::dict features;
  features["request_body"] = static_cast<bool>(KUMO_HAVE_REQUEST_BODY);
  features["tls_records"] = static_cast<bool>(KUMO_TUNE_S2N);
  features["event_stream_checks_lengths"] = !static_cast<bool>(KUMO_EVENT_STREAM_BEFORE_0_6_0);

  py::dict info;
  info["version"] = KUMO_VERSION;
  info["libraries"] = libraries;
  info["source"] = KUMO_DEPS_SOURCE;
  info["origin"] = KUMO_DEPS_ORIGIN;
  info["features"] = features;
  info["cpu_features"] = cpu_features();
  return info;
}

}  // namespace

void register_info(py::module_& m) { m.def("build_info", &build_info); }

}  // namespace kumo::bind
