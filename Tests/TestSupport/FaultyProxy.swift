import System
import Wire

/// Stands between a producer and brokers, and loses, delays, repeats and refuses appends, by the numbers of a seed.
///
/// What it knows of the protocol are the lengths of requests and answers, Produce, and where answers name addresses and
/// versions: clients are led back to it, and away from versions whose form it does not know. Everything else passes.
public final class FaultyProxy: Sendable {
    public let port: Int
    private let thread: LoopThread
    private let core: LoopBound<ProxyCore>

    /// - Parameter refuses: also answers appends with errors, in the broker's place or against its word.
    public init(to address: String, seed: UInt64, refuses: Bool) throws {
        let handover = Handover<(Int, LoopBound<ProxyCore>)>()
        thread = try LoopThread.start(name: "proxy") { (loop: EventLoop) throws -> ProxyCore in
            let core = ProxyCore(loop, seed: seed, refuses: refuses)
            let port = try core.listen(for: address)
            handover.put((port, LoopBound(core, on: loop)))
            return core
        }
        (port, core) = handover.take()
    }

    deinit {
        thread.stop()
        thread.join()
    }

    public var address: String { "127.0.0.1:\(port)" }

    /// From now on everything passes. Answers how many faults there were, once all that is late has arrived.
    public func heal() -> Int {
        ask { $0.isFaulty = false }
        while ask({ $0.lateCount }) > 0 { _ = eventually(seconds: 0.01) { false } }
        return ask { $0.faultCount }
    }

    private func ask<Answer: Sendable>(_ body: @escaping @Sendable (ProxyCore) -> Answer) -> Answer {
        let handover = Handover<Answer>()
        let core = core
        _ = thread.remote.execute { handover.put(body(core.value(on: $0))) }
        return handover.take()
    }
}

/// What becomes of an append.
private enum Fate: CaseIterable {
    case loseRequest, loseAnswer, delayAnswer
    /// The client loses its connection; the request arrives all the same, some time later.
    case late
    /// It arrives a second time, some time later.
    case twice
    case refuse
    /// It is appended, and the answer is an error.
    case appendAndRefuse
}

private final class ProxyCore {
    let loop: EventLoop
    var random: SeededGenerator
    let refuses: Bool
    var isFaulty = true
    var faultCount = 0
    /// Requests that will arrive when nobody waits for them.
    var lateCount = 0
    /// By the address that they stand for.
    private var listeners: [String: Listener] = [:]

    init(_ loop: EventLoop, seed: UInt64, refuses: Bool) {
        self.loop = loop
        self.refuses = refuses
        random = SeededGenerator(seed)
    }

    /// The port that leads to an address.
    func listen(for address: String) throws -> Int {
        if let known = listeners[address] { return known.port }
        let listener = try Listener(on: loop, host: "127.0.0.1", port: 0) { [unowned self] socket in
            _ = Relay(socket, to: address, self)
        }
        listeners[address] = listener
        return listener.port
    }

    func chance(_ of: Int) -> Bool { Int.random(in: 0..<of, using: &random) == 0 }

    /// What to do with the next append; nil: let it pass.
    func fate() -> Fate? {
        guard isFaulty, chance(4) else { return nil }
        let fate = Fate.allCases[Int.random(in: 0..<(refuses ? 7 : 5), using: &random)]
        faultCount += 1
        return fate
    }

    /// Brings a request to a broker over a connection of its own, whose answer nobody hears.
    func sendLate(_ frame: [UInt8], to address: String) {
        lateCount += 1
        loop.schedule(afterMs: Int.random(in: 1...200, using: &random)) { [self] in
            _ = LateRequest(frame, to: address, self)
        }
    }
}

extension ProxyCore {
    func connect(to address: String, _ delegate: any StreamDelegate) -> Stream {
        let colon = address.lastIndex(of: ":") ?? address.endIndex
        return Stream.connect(
            host: String(address[..<colon]), port: Int(address[colon...].dropFirst()) ?? 0, on: loop,
            delegate: delegate, limits: StreamLimits(bytes: 64 << 20, fragments: 1 << 16))
    }
}

private final class LateRequest: StreamDelegate {
    private let core: ProxyCore
    private var frames = Frames()

    init(_ frame: [UInt8], to address: String, _ core: ProxyCore) {
        self.core = core
        core.connect(to: address, self).write(frame)
    }

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        frames.add(bytes)
        if frames.next() != nil { stream.close() }
    }

    func streamClosed(_ stream: Stream, reason: CloseReason) { core.lateCount -= 1 }
}

/// Puts requests and answers together from the pieces in which they come.
private struct Frames {
    private var bytes: [UInt8] = []

    mutating func add(_ span: Span<UInt8>) { for index in 0..<span.count { bytes.append(span[index]) } }

    /// With its length.
    mutating func next() -> [UInt8]? {
        guard bytes.count >= 4 else { return nil }
        let size: Int32 = bytes.span.bigEndian(at: 0)
        guard bytes.count >= 4 + Int(size) else { return nil }
        defer { bytes.removeFirst(4 + Int(size)) }
        return Array(bytes[..<(4 + Int(size))])
    }
}

/// One client's connection and the one behind it.
private final class Relay: StreamDelegate {
    private struct Request {
        var key: Int16
        var version: Int16
        var frame: [UInt8]
        var fate: Fate?
    }

    private let core: ProxyCore
    private let address: String
    private var client: Stream?
    private var broker: Stream?
    private var requests = Frames()
    private var answers = Frames()
    private var pending: [Request] = []
    private var heldAnswers: [[UInt8]]?

    init(_ socket: consuming Socket, to address: String, _ core: ProxyCore) {
        self.core = core
        self.address = address
        client = try? Stream(socket, on: core.loop, delegate: self, limits: StreamLimits(bytes: 64 << 20))
        broker = core.connect(to: address, self)
    }

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        if stream === client {
            requests.add(bytes)
            while client != nil, let frame = requests.next() { forward(frame) }
        } else {
            answers.add(bytes)
            while client != nil, let frame = answers.next() { answer(frame) }
        }
    }

    func streamEnded(_ stream: Stream) { stream.close() }
    func streamClosed(_ stream: Stream, reason: CloseReason) { end() }

    private func end() {
        let (client, broker) = (client, broker)
        (self.client, self.broker) = (nil, nil)
        client?.close()
        broker?.close()
    }

    // MARK: Requests

    private func forward(_ frame: [UInt8]) {
        var request = Request(key: frame.span.bigEndian(at: 4), version: frame.span.bigEndian(at: 6), frame: frame)
        if request.key == 0 { request.fate = core.fate() }
        switch request.fate {
        case .loseRequest: return end()
        case .late:
            core.sendLate(frame, to: address)
            return end()
        case .twice: core.sendLate(frame, to: address)
        case .refuse where pending.isEmpty:
            client?.write(refusal(of: request, with: [-1, 7, 14, 19, 29]))
            return
        default: break
        }
        pending.append(request)
        broker?.write(frame)
    }

    private func refusal(of request: Request, with errors: [Int16]) -> [UInt8] {
        let error = errors[Int.random(in: errors.indices, using: &core.random)]
        return ProduceForm(request.frame, version: request.version).refusal(error)
    }

    // MARK: Answers

    private func answer(_ frame: [UInt8]) {
        guard !pending.isEmpty else { return end() }
        let request = pending.removeFirst()
        var frame = frame
        switch (request.key, request.fate) {
        case (_, .loseAnswer): return end()
        case (_, .appendAndRefuse):
            frame = refusal(of: request, with: [-1, 6, 7, 20, 56])
        case (_, .delayAnswer) where heldAnswers == nil:
            heldAnswers = []
            core.loop.schedule(afterMs: Int.random(in: 1...100, using: &core.random)) { [weak self] in
                for held in self?.heldAnswers ?? [] { self?.client?.write(held) }
                self?.heldAnswers = nil
            }
        case (18, _): limitVersions(&frame, request.version)
        case (3, _): frame = withAddresses(frame, request.version)
        default: break
        }
        if heldAnswers != nil {
            heldAnswers?.append(frame)
        } else {
            client?.write(frame)
        }
    }

    /// Lowers the newest version of Produce and Metadata to the last whose form is known here.
    private func limitVersions(_ frame: inout [UInt8], _ version: Int16) {
        // Length, correlation id and error; then a count and, for each kind, three numbers and, from version 3, tags.
        let isFlexible = version >= 3
        var position = 10
        if isFlexible {
            while position < frame.count, frame[position] & 0x80 != 0 { position += 1 }
            position += 1
        } else {
            position += 4
        }
        while position + 6 <= frame.count {
            let key: Int16 = frame.span.bigEndian(at: position)
            if let limit = [0: 7, 3: 4][key] as Int16?, frame.span.bigEndian(at: position + 4) as Int16 > limit {
                frame.setBigEndian(limit, at: position + 4)
            }
            position += isFlexible ? 7 : 6
        }
    }

    /// The same answer about the cluster, in which brokers stand under addresses of ours.
    private func withAddresses(_ frame: [UInt8], _ version: Int16) -> [UInt8] {
        var position = version >= 3 ? 12 : 8
        var made = Array(frame[..<(position + 4)])
        let count: Int32 = frame.span.bigEndian(at: position)
        position += 4
        for _ in 0..<count {
            made += frame[position..<position + 4]
            position += 4
            let host = text(frame, &position)
            let port: Int32 = frame.span.bigEndian(at: position)
            position += 4
            made.appendBigEndian(Int16(9))
            made += Array("127.0.0.1".utf8)
            made.appendBigEndian(Int32((try? core.listen(for: "\(host):\(port)")) ?? 0))
            // The rack is passed over.
            if version >= 1 {
                let rack: Int16 = frame.span.bigEndian(at: position)
                position += 2 + max(0, Int(rack))
                made.appendBigEndian(Int16(-1))
            }
        }
        made += frame[position...]
        made.setBigEndian(Int32(made.count - 4), at: 0)
        return made
    }
}

private func text(_ bytes: [UInt8], _ position: inout Int) -> String {
    let count: Int16 = bytes.span.bigEndian(at: position)
    defer { position += 2 + max(0, Int(count)) }
    return String(decoding: bytes[(position + 2)..<(position + 2 + max(0, Int(count)))], as: UTF8.self)
}

/// Which partitions a Produce request (versions 3 to 7) is about.
private struct ProduceForm {
    private let correlationID: Int32
    private let version: Int16
    private var topics: [(name: String, partitions: [Int32])] = []

    init(_ frame: [UInt8], version: Int16) {
        self.version = version
        correlationID = frame.span.bigEndian(at: 8)
        var position = 12
        _ = text(frame, &position)
        _ = text(frame, &position)
        position += 6
        let count: Int32 = frame.span.bigEndian(at: position)
        position += 4
        for _ in 0..<count {
            let name = text(frame, &position)
            let partitions: Int32 = frame.span.bigEndian(at: position)
            position += 4
            var numbers: [Int32] = []
            for _ in 0..<partitions {
                numbers.append(frame.span.bigEndian(at: position))
                let size: Int32 = frame.span.bigEndian(at: position + 4)
                position += 8 + max(0, Int(size))
            }
            topics.append((name, numbers))
        }
    }

    /// An answer that refuses all of it.
    func refusal(_ error: Int16) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendBigEndian(Int32(0))
        bytes.appendBigEndian(correlationID)
        bytes.appendBigEndian(Int32(topics.count))
        for topic in topics {
            bytes.appendBigEndian(Int16(topic.name.utf8.count))
            bytes += Array(topic.name.utf8)
            bytes.appendBigEndian(Int32(topic.partitions.count))
            for partition in topic.partitions {
                bytes.appendBigEndian(partition)
                bytes.appendBigEndian(error)
                for _ in 0..<(version >= 5 ? 3 : 2) { bytes.appendBigEndian(Int64(-1)) }
            }
        }
        bytes.appendBigEndian(Int32(0))
        bytes.setBigEndian(Int32(bytes.count - 4), at: 0)
        return bytes
    }
}
