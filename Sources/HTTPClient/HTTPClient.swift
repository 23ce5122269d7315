// Requests over libcurl's multi interface, driven by an event loop: no thread of its own, connections kept alive and
// shared, HTTP/2 where the server has it.
//
// libcurl tells which sockets it waits for and when it wants to be called again; both become a registration and a timer
// of the loop. Its callbacks run inside `curl_multi_socket_action`, on the loop's thread, and only note down what they
// are told; finished requests are collected afterwards, so a completion may start the next request or close the client.
internal import CCurl
internal import Glibc
public import System

@safe
public final class HTTPClient {
    public struct Options: Sendable {
        public var connectionsMax = 64
        public var connectTimeoutMs = 5000
        /// From the start of a request to the end of its answer.
        public var timeoutMs = 15_000
        public var responseBytesMax = 64 << 10
        /// A bundle of certificates to trust instead of the system's.
        public var certificateAuthorities: String?
        public var userAgent = "fanout"
        /// Connects only to addresses of the whole internet, whatever a name resolves to: for URLs that strangers name.
        /// Looked at when the socket is opened, so a name cannot mean another address by then.
        public var refusesPrivateAddresses = false

        public init() {}
    }

    private let loop: EventLoop
    private let options: Options
    private let multi: OpaquePointerBox
    private var transfers: [UInt: Transfer] = [:]
    private var idle: [EasyHandle] = []
    private var sockets: [Int32: Registration] = [:]
    private var timer: Timer?
    private var isActDue = false

    public init(loop: EventLoop, options: Options = Options()) throws(HTTPError) {
        guard Self.globalInit == CURLE_OK, let handle = unsafe curl_multi_init() else {
            throw HTTPError(.badRequest, "libcurl cannot be initialised")
        }
        self.loop = loop
        self.options = options
        unsafe multi = OpaquePointerBox(handle)
        let context = unsafe Unmanaged.passUnretained(self).toOpaque()
        unsafe _ = fanout_curl_multi_set_pointer(handle, CURLMOPT_SOCKETDATA, context)
        unsafe _ = fanout_curl_multi_set_pointer(handle, CURLMOPT_TIMERDATA, context)
        unsafe _ = fanout_curl_multi_set_long(handle, CURLMOPT_MAX_TOTAL_CONNECTIONS, options.connectionsMax)
        unsafe _ = fanout_curl_multi_set_long(handle, CURLMOPT_MAXCONNECTS, options.connectionsMax)
        unsafe _ = fanout_curl_multi_set_socket(handle) { _, socket, what, context, _ in
            unsafe HTTPClient.from(context)?.watch(socket, what)
            return 0
        }
        unsafe _ = fanout_curl_multi_set_timer(handle) { _, timeoutMs, context in
            unsafe HTTPClient.from(context)?.wakeUp(afterMs: timeoutMs)
            return 0
        }
    }

    deinit { close() }

    /// Requests under way and those waiting for a connection.
    public var inFlight: Int { transfers.count }

    /// Starts a request; the completion is called on the loop, never before this returns.
    public func send(_ request: HTTPRequest, _ completion: @escaping (Result<HTTPResponse, HTTPError>) -> Void) {
        let easy = idle.popLast() ?? EasyHandle(options)
        let transfer = Transfer(easy, request, responseBytesMax: options.responseBytesMax, completion)
        if let error = transfer.configure() ?? add(transfer) {
            loop.schedule(afterMs: 0) { completion(.failure(error)) }
        }
    }

    /// Ends every request with `cancelled`.
    public func close() {
        timer?.cancel()
        isActDue = false
        let cancelled = transfers.values
        for transfer in cancelled { unsafe curl_multi_remove_handle(multi.pointer, transfer.easy.pointer) }
        transfers = [:]
        idle = []
        // Closing the connections makes libcurl take back its sockets, so the registrations go first.
        for registration in sockets.values { registration.cancel() }
        sockets = [:]
        multi.destroy()
        for transfer in cancelled { transfer.completion(.failure(HTTPError(.cancelled, "cancelled"))) }
    }

    private func add(_ transfer: Transfer) -> HTTPError? {
        transfers[transfer.easy.key] = transfer
        let code = unsafe curl_multi_add_handle(multi.pointer, transfer.easy.pointer)
        guard code != CURLM_OK else { return nil }
        transfers[transfer.easy.key] = nil
        return HTTPError(.badRequest, unsafe String(cString: curl_multi_strerror(code)))
    }

    // MARK: libcurl and the loop

    private func watch(_ socket: Int32, _ what: Int32) {
        if what == CURL_POLL_REMOVE {
            sockets.removeValue(forKey: socket)?.cancel()
            return
        }
        var interest: Readiness = []
        if what != CURL_POLL_OUT { interest.insert(.read) }
        if what != CURL_POLL_IN { interest.insert(.write) }
        if let registration = sockets[socket] {
            registration.interest = interest
            return
        }
        sockets[socket] = try? loop.watch(socket, for: interest) { [unowned self] ready in
            var events: Int32 = 0
            if ready.contains(.read) || ready.contains(.hangup) { events |= CURL_CSELECT_IN }
            if ready.contains(.write) { events |= CURL_CSELECT_OUT }
            act(socket, events)
        }
    }

    private func wakeUp(afterMs: Int) {
        timer?.cancel()
        timer = nil
        guard afterMs >= 0 else { return }
        guard afterMs > 0 else { return actSoon() }
        timer = loop.schedule(afterMs: afterMs) { [unowned self] in
            timer = nil
            act(CURL_SOCKET_TIMEOUT, 0)
        }
    }

    /// Never at once, since libcurl forbids to be called from inside its own callback; and once for all requests that this
    /// tick begins. Not in a millisecond, which is the soonest that a timer fires: that was most of a quick request.
    private func actSoon() {
        guard !isActDue else { return }
        isActDue = true
        loop.atTickEnd { [weak self] in
            guard let self, isActDue else { return }
            isActDue = false
            act(CURL_SOCKET_TIMEOUT, 0)
        }
    }

    private func act(_ socket: Int32, _ events: Int32) {
        var running: Int32 = 0
        unsafe curl_multi_socket_action(multi.pointer, socket, events, &running)
        var code = CURLE_OK
        var done: [(Transfer, CURLcode)] = []
        while let easy = unsafe fanout_curl_next_done(multi.pointer, &code) {
            guard let transfer = transfers.removeValue(forKey: UInt(bitPattern: easy)) else { continue }
            unsafe curl_multi_remove_handle(multi.pointer, easy)
            done.append((transfer, code))
        }
        for (transfer, code) in done {
            let result = transfer.result(code)
            if idle.count < options.connectionsMax { idle.append(transfer.easy) }
            transfer.completion(result)
        }
    }

    private static func from(_ context: UnsafeMutableRawPointer?) -> HTTPClient? {
        guard let context = unsafe context else { return nil }
        return unsafe Unmanaged<HTTPClient>.fromOpaque(context).takeUnretainedValue()
    }

    private static let globalInit = curl_global_init(Int(CURL_GLOBAL_DEFAULT))
}

/// The one owner of the multi handle.
@safe
private final class OpaquePointerBox {
    private(set) var pointer: UnsafeMutableRawPointer?

    init(_ pointer: UnsafeMutableRawPointer) { unsafe self.pointer = pointer }

    func destroy() {
        guard let pointer = unsafe pointer else { return }
        unsafe curl_multi_cleanup(pointer)
        unsafe self.pointer = nil
    }

    deinit { destroy() }
}
