#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
// The descriptor that librdkafka writes to when a queue has something; Swift's Glibc module leaves this header out.
#include <sys/eventfd.h>
