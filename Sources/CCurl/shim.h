#include <curl/curl.h>
#include <netdb.h>
#include <sys/socket.h>

// libcurl's option calls are variadic, which Swift cannot import: one wrapper for each type of argument.
static inline CURLcode fanout_curl_set_long(CURL *easy, CURLoption option, long value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode fanout_curl_set_text(CURL *easy, CURLoption option, const char *value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode fanout_curl_set_pointer(CURL *easy, CURLoption option, void *value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode fanout_curl_set_list(CURL *easy, CURLoption option, struct curl_slist *value) {
    return curl_easy_setopt(easy, option, value);
}
typedef size_t (*fanout_curl_sink)(char *, size_t, size_t, void *);
static inline CURLcode fanout_curl_set_sink(CURL *easy, CURLoption option, fanout_curl_sink value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode fanout_curl_get_long(CURL *easy, CURLINFO info, long *value) {
    return curl_easy_getinfo(easy, info, value);
}
static inline CURLcode fanout_curl_get_pointer(CURL *easy, CURLINFO info, void **value) {
    return curl_easy_getinfo(easy, info, (char **)value);
}
static inline CURLMcode fanout_curl_multi_set_long(CURLM *multi, CURLMoption option, long value) {
    return curl_multi_setopt(multi, option, value);
}
static inline CURLMcode fanout_curl_multi_set_pointer(CURLM *multi, CURLMoption option, void *value) {
    return curl_multi_setopt(multi, option, value);
}
static inline CURLMcode fanout_curl_multi_set_socket(CURLM *multi, curl_socket_callback value) {
    return curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, value);
}
static inline CURLMcode fanout_curl_multi_set_timer(CURLM *multi, curl_multi_timer_callback value) {
    return curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, value);
}
typedef curl_socket_t (*fanout_curl_opener)(void *, curlsocktype, struct curl_sockaddr *);
static inline CURLcode fanout_curl_set_opener(CURL *easy, fanout_curl_opener value) {
    return curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, value);
}
// The address is longer than its declared type, so it is read here, where it lies.
static inline int fanout_curl_address_text(const struct curl_sockaddr *address, char *text, size_t size) {
    return getnameinfo(&address->addr, address->addrlen, text, (socklen_t)size, NULL, 0, NI_NUMERICHOST);
}
static inline curl_socket_t fanout_curl_open(const struct curl_sockaddr *address) {
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}
// The message's result is in a union, and the handle stays valid after the message does not.
static inline CURL *fanout_curl_next_done(CURLM *multi, CURLcode *result) {
    int left;
    CURLMsg *message;
    while ((message = curl_multi_info_read(multi, &left))) {
        if (message->msg != CURLMSG_DONE) continue;
        *result = message->data.result;
        return message->easy_handle;
    }
    return NULL;
}
