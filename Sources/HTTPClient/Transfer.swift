internal import CCurl
internal import Glibc
internal import System

/// One owner of a libcurl easy handle, used again for request after request.
@safe
final class EasyHandle {
    let pointer: UnsafeMutableRawPointer?
    /// Identifies it in libcurl's messages.
    var key: UInt { unsafe UInt(bitPattern: pointer) }

    /// Sets what is the same for every request.
    init(_ options: HTTPClient.Options) {
        let handle = unsafe curl_easy_init()
        unsafe pointer = handle
        // Only the web's own protocols, and no redirect: a webhook that redirects is configured wrongly, and following
        // would send signed bodies to whoever it names.
        unsafe _ = fanout_curl_set_text(handle, CURLOPT_PROTOCOLS_STR, "http,https")
        unsafe _ = fanout_curl_set_long(handle, CURLOPT_FOLLOWLOCATION, 0)
        unsafe _ = fanout_curl_set_long(handle, CURLOPT_NOSIGNAL, 1)
        unsafe _ = fanout_curl_set_long(handle, CURLOPT_TCP_NODELAY, 1)
        unsafe _ = fanout_curl_set_long(handle, CURLOPT_CONNECTTIMEOUT_MS, options.connectTimeoutMs)
        unsafe _ = fanout_curl_set_long(handle, CURLOPT_TIMEOUT_MS, options.timeoutMs)
        unsafe _ = fanout_curl_set_text(handle, CURLOPT_USERAGENT, options.userAgent)
        if let bundle = options.certificateAuthorities {
            unsafe _ = fanout_curl_set_text(handle, CURLOPT_CAINFO, bundle)
        }
        if options.refusesPrivateAddresses {
            // A proxy would look names up itself.
            unsafe _ = fanout_curl_set_text(handle, CURLOPT_PROXY, "")
            unsafe _ = fanout_curl_set_opener(handle) { context, _, address in
                unsafe Transfer.open(address, context)
            }
        }
        unsafe _ = fanout_curl_set_sink(handle, CURLOPT_WRITEFUNCTION) { bytes, size, count, context in
            unsafe Transfer.receive(bytes, size * count, context) { unsafe $0.receiveBody($1) }
        }
        unsafe _ = fanout_curl_set_sink(handle, CURLOPT_HEADERFUNCTION) { bytes, size, count, context in
            unsafe Transfer.receive(bytes, size * count, context) { unsafe $0.receiveHeader($1) }
        }
    }

    deinit { unsafe curl_easy_cleanup(pointer) }
}

/// A request under way: what it sends stays alive here, what comes back collects here.
@safe
final class Transfer {
    let easy: EasyHandle
    let completion: (Result<HTTPResponse, HTTPError>) -> Void
    private let request: HTTPRequest
    private let responseBytesMax: Int
    private var response = HTTPResponse(status: 0)
    private var isTooLarge = false
    private var isForbidden = false
    private var headerList: UnsafeMutablePointer<curl_slist>?

    init(
        _ easy: EasyHandle, _ request: HTTPRequest, responseBytesMax: Int,
        _ completion: @escaping (Result<HTTPResponse, HTTPError>) -> Void
    ) {
        self.easy = easy
        self.request = request
        self.responseBytesMax = responseBytesMax
        self.completion = completion
    }

    deinit { unsafe curl_slist_free_all(headerList) }

    /// Why the request cannot be made, or `nil`.
    func configure() -> HTTPError? {
        // Checked here, because libcurl says of an answer that is no HTTP too that it does not know the protocol.
        guard request.url.hasPrefix("https://") || request.url.hasPrefix("http://") else {
            return HTTPError(.badRequest, "only http and https URLs are called")
        }
        for (name, value) in request.headers {
            let text = "\(name): \(value)"
            guard !name.isEmpty, text.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7f }) else {
                return HTTPError(.badRequest, "a header may not contain control characters")
            }
            unsafe headerList = curl_slist_append(headerList, text)
        }
        // libcurl would wait a second for "100 Continue" before it sends a larger body.
        unsafe headerList = curl_slist_append(headerList, "Expect:")
        let handle = unsafe easy.pointer
        let context = unsafe Unmanaged.passUnretained(self).toOpaque()
        unsafe _ = fanout_curl_set_text(handle, CURLOPT_URL, request.url)
        unsafe _ = fanout_curl_set_list(handle, CURLOPT_HTTPHEADER, headerList)
        if !request.body.isEmpty || request.method == "POST" || request.method == "PUT" {
            unsafe _ = fanout_curl_set_long(handle, CURLOPT_POST, 1)
            unsafe _ = fanout_curl_set_long(handle, CURLOPT_POSTFIELDSIZE, request.body.count)
            // Copied by libcurl: an array's storage may not be pointed at beyond a call.
            unsafe request.body.withUnsafeBytes { body in
                _ = unsafe fanout_curl_set_pointer(
                    handle, CURLOPT_COPYPOSTFIELDS, UnsafeMutableRawPointer(mutating: body.baseAddress))
            }
        } else {
            unsafe _ = fanout_curl_set_long(handle, CURLOPT_HTTPGET, 1)
            if request.method == "HEAD" { unsafe _ = fanout_curl_set_long(handle, CURLOPT_NOBODY, 1) }
        }
        unsafe _ = fanout_curl_set_text(handle, CURLOPT_CUSTOMREQUEST, request.method)
        unsafe _ = fanout_curl_set_pointer(handle, CURLOPT_OPENSOCKETDATA, context)
        unsafe _ = fanout_curl_set_pointer(handle, CURLOPT_WRITEDATA, context)
        unsafe _ = fanout_curl_set_pointer(handle, CURLOPT_HEADERDATA, context)
        return nil
    }

    func result(_ code: CURLcode) -> Result<HTTPResponse, HTTPError> {
        guard code == CURLE_OK else {
            if isTooLarge {
                return .failure(HTTPError(.tooLarge, "the answer is larger than \(responseBytesMax) bytes"))
            }
            if isForbidden { return .failure(HTTPError(.forbidden, "the address is not public")) }
            // Its URL was looked at before.
            if code == CURLE_UNSUPPORTED_PROTOCOL {
                return .failure(HTTPError(.protocolError, "the answer is no HTTP"))
            }
            return .failure(HTTPError(Self.meaning(of: code), unsafe String(cString: curl_easy_strerror(code))))
        }
        var status = 0
        unsafe _ = fanout_curl_get_long(easy.pointer, CURLINFO_RESPONSE_CODE, &status)
        response.status = status
        return .success(response)
    }

    fileprivate static func receive(
        _ bytes: UnsafeMutablePointer<CChar>?, _ count: Int, _ context: UnsafeMutableRawPointer?,
        _ sink: (Transfer, UnsafeRawBufferPointer) -> Bool
    ) -> Int {
        guard let context = unsafe context, let bytes = unsafe bytes else { return 0 }
        let transfer = unsafe Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
        // Any other number than what was given makes libcurl abort.
        return unsafe sink(transfer, UnsafeRawBufferPointer(start: bytes, count: count)) ? count : 0
    }

    fileprivate static func open(
        _ address: UnsafeMutablePointer<curl_sockaddr>?, _ context: UnsafeMutableRawPointer?
    ) -> curl_socket_t {
        guard let context = unsafe context, let address = unsafe address else { return CURL_SOCKET_BAD }
        let text = unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(NI_MAXHOST)) { buffer in
            let status = unsafe fanout_curl_address_text(address, buffer.baseAddress, buffer.count)
            return status == 0 ? unsafe String(cString: buffer.baseAddress.unsafelyUnwrapped) : ""
        }
        guard SocketAddress.numeric(host: text, port: 0)?.isPublic == true else {
            unsafe Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue().isForbidden = true
            return CURL_SOCKET_BAD
        }
        return unsafe fanout_curl_open(address)
    }

    fileprivate func receiveBody(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard response.body.count + bytes.count <= responseBytesMax else {
            isTooLarge = true
            return false
        }
        unsafe response.body.append(contentsOf: bytes)
        return true
    }

    /// A whole line at a time.
    fileprivate func receiveHeader(_ bytes: UnsafeRawBufferPointer) -> Bool {
        // The status line of a new answer (after "100 Continue", say) begins the headers anew.
        if unsafe bytes.starts(with: "HTTP/".utf8) { response.head.removeAll() }
        guard response.head.count + bytes.count <= responseBytesMax else {
            isTooLarge = true
            return false
        }
        unsafe response.head.append(contentsOf: bytes)
        return true
    }

    private static func meaning(of code: CURLcode) -> HTTPError.Code {
        switch code {
        case CURLE_URL_MALFORMAT: .badRequest
        case CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY: .resolve
        case CURLE_COULDNT_CONNECT: .connect
        case CURLE_OPERATION_TIMEDOUT: .timeout
        case CURLE_SSL_CONNECT_ERROR, CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CERTPROBLEM, CURLE_SSL_CACERT_BADFILE,
            CURLE_SSL_CIPHER, CURLE_SSL_ISSUER_ERROR:
            .tls
        default: .protocolError
        }
    }
}
