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
        unsafe rd_kafka_queue_destroy(queue)
        return unsafe Reaper.destroy(raw, context, deadline: deadline)
    }
}

extension KafkaError {
    init(fatal raw: rd_kafka_resp_err_t, message: String, place: String) {
        self.code = .fatal
        self.rawCode = raw.rawValue
        self.rawName = unsafe String(cString: rd_kafka_err2name(raw))
        self.message = message
        self.place = place
        self.isFatal = true
        self.isRetriable = false
    }
}

/// Ends instances on threads of their own.
private enum Reaper {
    @safe
    // Sendable: both handles are for use by any one thread, and the ending thread is the last to use them.
    final class Ending: @unchecked Sendable {
        let client: OpaquePointer
        let context: Unmanaged<ClientContext>
        let done = Atomic<Bool>(false)
        let wake: WakeDescriptor

        init(_ client: OpaquePointer, _ context: Unmanaged<ClientContext>) throws(KafkaError) {
            unsafe self.client = client
            unsafe self.context = context
            self.wake = try WakeDescriptor()
        }

        func run() {
            unsafe rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE)
            unsafe context.release()
            done.store(true, ordering: .releasing)
            wake.signal()
        }
    }

    static func destroy(
        _ client: OpaquePointer, _ context: Unmanaged<ClientContext>, deadline: Deadline
    ) -> Bool {
        guard let task = try? unsafe Ending(client, context) else { return false }
        var thread = pthread_t()
        let argument = unsafe Unmanaged.passRetained(task)
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
        while !task.done.load(ordering: .acquiring) {
            let remaining = deadline.remainingMs
            if remaining == 0 { return false }
            var poll = pollfd(fd: task.wake.descriptor, events: Int16(POLLIN), revents: 0)
            _ = unsafe Glibc.poll(&poll, 1, remaining)
        }
        return true
    }
}
