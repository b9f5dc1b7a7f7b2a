#ifdef KUMO_MISSING_PACKAGE
#error "a direct dependency is not installed"
#endif

#include <aws/checksums/crc.h>
#include <aws/event-stream/event_stream.h>
#include <aws/mqtt/mqtt.h>
#include <aws/s3/s3.h>

int main(void) {
  aws_s3_library_init(aws_default_allocator());
  aws_mqtt_library_init(aws_default_allocator());
  aws_event_stream_library_init(aws_default_allocator());
  return (int)aws_checksums_crc32c((const uint8_t *)"", 0, 0);
}
