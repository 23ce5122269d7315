// Owner of one `rd_kafka_t`: its threads, sockets and queues.
//
// Ending one can block for as long as a broker does not answer, and a shutdown must not hang on that. So the end is
// handed to a thread of its own, and the caller waits for it no longer than its deadline. After the deadline the
// instance is abandoned to that thread: it ends when librdkafka lets it, or with the process.
internal import CRdKafka
internal import Glibc
internal import Synchronization

/// What librdkafka's callbacks need; alive as long as the instance.
final class ClientContext: Sendable {
    let log: KafkaLogSink?

    init(log: KafkaLogSink?) { self.log = log }

    func report(level: Int32, facility: String, message: String) {
        log?(KafkaLogLine(level: .init(rawValue: level) ?? .debug, facility: facility, message: message))
    }
}

@safe
final class ClientHandle {
    let raw: OpaquePointer
    /// Events which are not about single messages, and for producers the delivery reports.
    let queue: OpaquePointer
    private let kind: Kind
    private let context: Unmanaged<ClientContext>
    private var isDestroyed = false

    enum Kind {
        case producer
        case consumer

        var raw: rd_kafka_type_t { self == .producer ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER }
    }

    init(
        _ kind: Kind, _ properties: consuming PropertySet, events: Int32, log: KafkaLogSink?, place: String
    ) throws(KafkaError) {
        let context = unsafe Unmanaged.passRetained(ClientContext(log: log))
        unsafe properties.withRaw { conf in
            unsafe rd_kafka_conf_set_opaque(conf, context.toOpaque())
            unsafe rd_kafka_conf_set_events(conf, events)
            unsafe rd_kafka_conf_set_log_cb(conf) { client, level, facility, message in
                guard let client = unsafe client, let opaque = unsafe rd_kafka_opaque(client) else { return }
                let context = unsafe Unmanaged<ClientContext>.fromOpaque(opaque).takeUnretainedValue()
                unsafe context.report(
                    level: level, facility: facility.map { unsafe String(cString: $0) } ?? "",
                    message: message.map { unsafe String(cString: $0) } ?? "")
            }
        }
        var reason = [CChar](repeating: 0, count: 512)
        let conf = unsafe properties.take()
        guard let made = unsafe rd_kafka_new(kind.raw, conf, &reason, reason.count) else {
            unsafe properties.giveBack(conf)
            unsafe context.release()
            throw KafkaError(.configuration, string(fromC: reason), place: place)
        }
        self.kind = kind
        unsafe self.context = context
        unsafe raw = made
        switch kind {
        case .producer:
            unsafe queue = rd_kafka_queue_get_main(made)
        case .consumer:
            // One queue for everything: messages, rebalances, commit results and errors, in their order.
            _ = unsafe rd_kafka_poll_set_consumer(made)
            unsafe queue = rd_kafka_queue_get_consumer(made)
        }
    }

    deinit { destroy(deadline: Deadline(afterMs: 5000)) }

    /// The condition after which this instance does nothing more.
    func fatalError(place: String) -> KafkaError? {
        guard unsafe rd_kafka_fatal_error(raw, nil, 0) != RD_KAFKA_RESP_ERR_NO_ERROR else { return nil }
        var reason = [CChar](repeating: 0, count: 512)
        let code = unsafe rd_kafka_fatal_error(raw, &reason, reason.count)
        return KafkaError(fatal: code, message: string(fromC: reason), place: place)
    }

    /// Ends the instance; false when the deadline passed first. Nothing may use the handle afterwards.
    @discardableResult
    func destroy(deadline: Deadline) -> Bool {
        guard !isDestroyed else { return true }
        isDestroyed = true
        return unsafe Reaper.destroy(Ending(raw, queue, kind, context), deadline: deadline)
    }
}

extension KafkaError {
    init(fatal raw: rd_kafka_resp_err_t, message: String, place: String) {
        self.code = .fatal
        self.rawCode = raw.rawValue
        self.rawName = unsafe String(cString: rd_kafka_err2name(raw))
        self.message =
            raw == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID
            ? "another process has joined the group under this one's name" : message
        self.place = place
        self.isFatal = true
        self.isRetriable = false
    }
}

/// The end of an instance, for a thread of its own.
@safe
// Sendable: the handles are for use by any one thread, and the ending thread is the last to use them.
private final class Ending: @unchecked Sendable {
    private let client: OpaquePointer
    private let queue: OpaquePointer
    private let kind: ClientHandle.Kind
    private let context: Unmanaged<ClientContext>
    let done = Atomic<Bool>(false)
    let wake: WakeDescriptor?

    init(
        _ client: OpaquePointer, _ queue: OpaquePointer, _ kind: ClientHandle.Kind, _ context: Unmanaged<ClientContext>
    ) {
        unsafe (self.client, self.queue, self.context) = (client, queue, context)
        self.kind = kind
        wake = try? WakeDescriptor()
    }

    func run() {
        if kind == .consumer { leaveGroup() }
        unsafe rd_kafka_queue_destroy(queue)
        unsafe rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE)
        unsafe context.release()
        done.store(true, ordering: .releasing)
        wake?.signal()
    }

    /// However long it takes: when an instance is destroyed before, and a rebalance waits to be answered, its main thread
    /// spins for ever.
    private func leaveGroup() {
        let failure = unsafe KafkaError(consuming: rd_kafka_consumer_close_queue(client, queue), place: "close")
        // It has no group, or will do nothing more.
        guard failure == nil else { return }
        while unsafe rd_kafka_consumer_closed(client) == 0 {
            guard let event = unsafe rd_kafka_queue_poll(queue, 100) else { continue }
            if unsafe rd_kafka_event_type(event) == RD_KAFKA_EVENT_REBALANCE { _ = unsafe rd_kafka_assign(client, nil) }
            unsafe rd_kafka_event_destroy(event)
        }
    }
}

private enum Reaper {
    static func destroy(_ ending: Ending, deadline: Deadline) -> Bool {
        guard let wake = ending.wake else { return false }
        var thread = pthread_t()
        let argument = unsafe Unmanaged.passRetained(ending)
        let failure = unsafe pthread_create(
            &thread, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                unsafe Unmanaged<Ending>.fromOpaque(argument).takeRetainedValue().run()
                return nil
            }, argument.toOpaque())
        guard failure == 0 else {
            unsafe argument.release()
            return false
        }
        pthread_detach(thread)
        while !ending.done.load(ordering: .acquiring) {
            let remaining = deadline.remainingMs
            if remaining == 0 { return false }
            var poll = pollfd(fd: wake.descriptor, events: Int16(POLLIN), revents: 0)
            _ = unsafe Glibc.poll(&poll, 1, remaining)
        }
        return true
    }
}
