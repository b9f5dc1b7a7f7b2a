# Detects what the libraries found offer, and writes kumo_build_config.h.

include(CheckStructHasMember)

set(KUMO_GENERATED_INCLUDE_DIR "${CMAKE_CURRENT_BINARY_DIR}/generated")
set(KUMO_VERSIONED_LIBRARIES
  aws-c-auth aws-c-cal aws-c-common aws-c-compression aws-c-event-stream aws-c-http aws-c-io
  aws-c-mqtt aws-c-s3 aws-c-sdkutils aws-checksums aws-lc s2n)

function(kumo_check_member member result)
  set(CMAKE_REQUIRED_LIBRARIES AWS::aws-c-s3)
  # The answer belongs to one prefix, so it is not kept for the next one.
  unset(${result} CACHE)
  check_struct_has_member(
    "struct aws_s3_meta_request_options" ${member} "aws/s3/s3_client.h" ${result} LANGUAGE C)
  if(${result})
    set(${result} 1 PARENT_SCOPE)
  else()
    set(${result} 0 PARENT_SCOPE)
  endif()
endfunction()

kumo_check_member(request_body KUMO_HAVE_REQUEST_BODY)

# The prefix that aws-c-s3's config file lies in: <prefix>/lib*/cmake/aws-c-s3, or
# <prefix>/share/aws-c-s3 where a kmpkg or vcpkg port moved it.
get_filename_component(KUMO_FOUND_PREFIX "${aws-c-s3_DIR}" DIRECTORY)
while(KUMO_FOUND_PREFIX MATCHES "/(cmake|lib|lib64|share|[^/]*-linux-gnu[^/]*)$")
  get_filename_component(KUMO_FOUND_PREFIX "${KUMO_FOUND_PREFIX}" DIRECTORY)
endwhile()
set(native_manifest "${KUMO_FOUND_PREFIX}/share/kumo-crt/native-deps.json")
set(native_manifest_text "")
if(EXISTS "${native_manifest}")
  file(READ "${native_manifest}" native_manifest_text)
endif()

function(kumo_library_version library result)
  set(version "")
  if(native_manifest_text)
    string(JSON version ERROR_VARIABLE error GET "${native_manifest_text}" libraries ${library})
    if(error)
      set(version "")
    endif()
  endif()
  if(NOT version)
    set(version "${${library}_VERSION}")
  endif()
  if(NOT version)
    # kmpkg and vcpkg list an installed port as info/<port>_<version>_<triplet>.list.
    get_filename_component(triplet "${KUMO_FOUND_PREFIX}" NAME)
    get_filename_component(installed "${KUMO_FOUND_PREFIX}" DIRECTORY)
    file(GLOB lists
      "${installed}/kmpkg/info/${library}_*_${triplet}.list"
      "${installed}/vcpkg/info/${library}_*_${triplet}.list")
    if(lists)
      list(GET lists 0 first)
      get_filename_component(name "${first}" NAME)
      string(REGEX REPLACE "^${library}_(.*)_${triplet}\\.list$" "\\1" version "${name}")
    endif()
  endif()
  if(NOT version)
    set(version unknown)
  endif()
  set(${result} "${version}" PARENT_SCOPE)
endfunction()

file(READ "${PROJECT_SOURCE_DIR}/cmake/pins.json" pins)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
  "${PROJECT_SOURCE_DIR}/cmake/pins.json")
string(JSON floor_version GET "${pins}" floor)
foreach(library IN LISTS KUMO_VERSIONED_LIBRARIES)
  string(TOUPPER "KUMO_VERSION_${library}" variable)
  string(REPLACE "-" "_" variable "${variable}")
  kumo_library_version(${library} ${variable})
  string(JSON floor ERROR_VARIABLE no_floor
    GET "${pins}" awscrt ${floor_version} libraries ${library})
  if(NOT no_floor AND ${variable} MATCHES "^[0-9]" AND ${variable} VERSION_LESS floor)
    message(FATAL_ERROR
      "${library} ${${variable}} in ${KUMO_FOUND_PREFIX} is older than ${floor}, the oldest "
      "version that kumo_crt works with. Update it, or set KUMO_CRT_DEPS=bundled.")
  endif()
endforeach()

if(KUMO_VERSION_AWS_C_EVENT_STREAM MATCHES "^[0-9]"
   AND KUMO_VERSION_AWS_C_EVENT_STREAM VERSION_GREATER_EQUAL 0.6.0)
  set(KUMO_EVENT_STREAM_BEFORE_0_6_0 0)
else()
  set(KUMO_EVENT_STREAM_BEFORE_0_6_0 1)
endif()

# Calls into a static s2n can be led through ours (src/cpp/crt/s2n_tuning.cpp).
set(KUMO_TUNE_S2N 0)
if(TARGET AWS::s2n)
  get_target_property(s2n_type AWS::s2n TYPE)
  if(s2n_type STREQUAL "STATIC_LIBRARY")
    set(KUMO_TUNE_S2N 1)
  endif()
endif()

if(KUMO_DEPS_SOURCE STREQUAL "bundled")
  string(JSON KUMO_DEPS_ORIGIN GET "${native_manifest_text}" origin)
else()
  set(KUMO_DEPS_ORIGIN "${KUMO_FOUND_PREFIX}")
endif()

configure_file("${PROJECT_SOURCE_DIR}/cmake/kumo_build_config.h.in"
  "${KUMO_GENERATED_INCLUDE_DIR}/kumo_build_config.h" @ONLY)
message(STATUS
  "aws-c-s3 ${KUMO_VERSION_AWS_C_S3} from ${KUMO_DEPS_ORIGIN}: "
  "request_body ${KUMO_HAVE_REQUEST_BODY}, static s2n ${KUMO_TUNE_S2N}")
