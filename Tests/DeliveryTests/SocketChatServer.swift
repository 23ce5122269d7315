import KafkaClient
import PushLink
import Runtime
import Synchronization
import System
import Wire

/// A `ModelChatServer` behind a real listener, announced in `chat.instances`: the other end of `fanout delivery`'s sockets.
final class SocketChatServer: Sendable {
    let name: String
    let port: Int
    private let thread: LoopThread
    private let core: LoopBound<SocketChatServerCore>

    init(
        name: String, epoch: UInt64, secret: LinkSecret, kafka: KafkaConfiguration, names: Names, port: Int = 0,
        clockMs: Int64 = 0
    ) throws {
        self.name = name
        let made = Handover<(LoopBound<SocketChatServerCore>, Int)>()
        thread = try LoopThread.start(name: name) { loop in
            let core = try SocketChatServerCore(
                LinkIdentity(name: name, epoch: epoch), secret, kafka, names, port: port, clockMs: clockMs, on: loop)
            made.put((LoopBound(core, on: loop), core.port))
            return core
        }
        (core, self.port) = made.take()
    }

    /// Runs `body` on the server's thread and waits for its answer.
    func with<Result: Sendable>(_ body: @escaping @Sendable (ModelChatServer) -> Result) -> Result {
        let answer = Handover<Result>()
        thread.remote.execute { [core] loop in
            let core = core.value(on: loop)
            answer.put(body(core.model))
            core.flush()
        }
        return answer.take()
    }

    /// Ends as by SIGKILL: connections are reset, nothing is said.
    func kill() {
        thread.stop()
        thread.join()
    }
}

final class SocketChatServerCore: StreamDelegate {
    let model: ModelChatServer
    private(set) var port = 0
    private let loop: EventLoop
    private var listener: Listener?
    private var streams: [Int: Stream] = [:]
    private var numbers: [ObjectIdentifier: Int] = [:]
    private var nextLink = 1
    private let producer: Producer
    private let instances: ProducerTopic
    /// How far its clock is ahead.
    private let clockMs: Int64

    init(
        _ identity: LinkIdentity, _ secret: LinkSecret, _ kafka: KafkaConfiguration, _ names: Names, port: Int,
        clockMs: Int64, on loop: EventLoop
    ) throws {
        model = ModelChatServer(identity, secret)
        self.loop = loop
        self.clockMs = clockMs
        producer = try Producer(kafka)
        instances = try producer.topic(names[.instances])
        listener = try Listener(on: loop, host: "127.0.0.1", port: port) { [unowned self] socket in accept(socket) }
        self.port = listener?.port ?? 0
        announce()
    }

    private func announce() {
        var json = JSONWriter()
        InstanceRecord(
            instance: model.identity.name, epoch: model.identity.epoch, pushAddress: "127.0.0.1:\(port)", publicURL: "",
            connections: 0, isDraining: false, ts: loop.nowMs + clockMs
        ).write(to: &json)
        _ = try? producer.produce(
            instances, key: Array(model.identity.name.utf8).span, value: json.bytes.span, headers: RecordHeaders(),
            timestampMs: loop.nowMs + clockMs, tag: 1)
        producer.poll { _ in }
        model.tick(nowMs: loop.nowMs)
        flush()
        loop.schedule(afterMs: 200) { [unowned self] in announce() }
    }

    private func accept(_ socket: consuming Socket) {
        guard let stream = try? Stream(socket, on: loop, delegate: self) else { return }
        streams[nextLink] = stream
        numbers[ObjectIdentifier(stream)] = nextLink
        model.accept(nextLink, nowMs: loop.nowMs)
        nextLink += 1
    }

    func flush() {
        for (link, stream) in streams {
            let bytes = model.takeOutput(link, nowMs: loop.nowMs)
            if !bytes.isEmpty { stream.write(bytes) }
        }
        for failure in model.failed { streams[failure.link]?.closeAfterFlush() }
        model.failed = []
    }

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        guard let link = numbers[ObjectIdentifier(stream)] else { return }
        model.receive(link, [UInt8](copying: bytes), nowMs: loop.nowMs)
        flush()
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) {
        guard let link = numbers.removeValue(forKey: ObjectIdentifier(stream)) else { return }
        streams[link] = nil
        model.lose(link)
        flush()
    }
}
