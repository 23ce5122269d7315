internal import System

/// Takes a static member out of its group, which librdkafka 2.0.2 has no call for: to it, a member that closes comes back, and
/// the group waits for it until its session times out.
///
/// Three requests on connections of their own, made on the caller's thread within a deadline. Where only librdkafka can reach
/// the brokers (`Cluster.serves`), nothing is done.
struct GroupDeparture {
    let group: String
    let member: String
    let instance: String

    private enum Outcome {
        case done
        /// By somebody who answers for the group elsewhere, or not yet.
        case askAgain
        case failed(KafkaError)
    }

    /// - Returns: why the group was not left.
    func run(_ configuration: KafkaConfiguration, deadline: Deadline) -> KafkaError? {
        guard let seeds = Cluster.addresses(of: configuration) else {
            return failure(.unsupported, "brokers that are reached by encryption or SASL cannot be told")
        }
        guard let loop = try? EventLoop() else { return failure(.other, "no event loop") }
        defer { loop.close() }
        var last = failure(.timedOut, "no broker has answered in time")
        while deadline.remainingMs > 0 {
            for seed in seeds.shuffled() {
                let conversation = Conversation(configuration.clientID, on: loop, deadline)
                switch leave(conversation, seed) {
                case .done: return nil
                case .failed(let error): return error
                case .askAgain: last = failure(.unavailable, "the group's coordinator cannot be asked")
                }
            }
            loop.runOnce(timeoutMs: Int(min(deadline.remainingMs, 50)))
        }
        return last
    }

    private func failure(_ code: KafkaError.Code, _ message: String) -> KafkaError {
        KafkaError(code, message, place: "leave \(group)")
    }

    private func leave(_ conversation: Conversation, _ seed: (host: String, port: Int)) -> Outcome {
        do {
            let found = conversation.ask(seed, .findCoordinator) { frame in
                frame.string(group)
                frame.int8(0)
            }
            guard let found else { return .askAgain }
            var reader = AnswerReader(found.span)
            (_, _) = (try reader.int32(), try reader.int32())
            guard try reader.int16() == 0 else { return .askAgain }
            _ = try reader.nullableString()
            _ = try reader.int32()
            let coordinator = (host: try reader.string(), port: Int(try reader.int32()))
            let answer = conversation.ask(coordinator, .leaveGroup) { frame in
                frame.string(group)
                frame.int32(1)
                frame.string(member)
                frame.string(instance)
            }
            guard let answer else { return .askAgain }
            return try outcome(answer)
        } catch {
            return .failed(failure(.other, "an answer that is not what was asked for"))
        }
    }

    private func outcome(_ answer: AnswerBytes) throws(AnswerReader.Malformed) -> Outcome {
        var reader = AnswerReader(answer.span)
        (_, _) = (try reader.int32(), try reader.int32())
        var code = try reader.int16()
        for _ in 0..<(code == 0 ? try reader.count() : 0) {
            (_, _) = (try reader.string(), try reader.nullableString())
            code = try reader.int16()
        }
        switch code {
        // 25: it is not a member any more.
        case 0, 25: return .done
        // 14, 15, 16: the coordinator loads, is not there, or is another.
        case 14, 15, 16: return .askAgain
        default: return .failed(failure(.other, "the group refuses it (error \(code))"))
        }
    }
}

/// One question at a time, to one broker at a time.
private final class Conversation: StreamDelegate {
    private let clientID: String
    private let loop: EventLoop
    private let deadline: Deadline
    private var inbox = AnswerInbox(bytesMax: 1 << 16)
    private var answer: AnswerBytes?
    private var isOver = false
    /// The connection that is asked on: what becomes of earlier ones does not matter.
    private var stream: Stream?

    init(_ clientID: String, on loop: EventLoop, _ deadline: Deadline) {
        (self.clientID, self.loop, self.deadline) = (clientID, loop, deadline)
    }

    /// The answer; nil when there is none in time.
    func ask(
        _ broker: (host: String, port: Int), _ api: KafkaAPI, _ fields: (inout RequestFrame) -> Void
    ) -> AnswerBytes? {
        (answer, isOver, inbox) = (nil, false, AnswerInbox(bytesMax: 1 << 16))
        guard (1...65535).contains(broker.port) else { return nil }
        var frame = RequestFrame(api, version: api.versionMax, correlationID: 1, clientID: clientID)
        fields(&frame)
        let stream = Stream.connect(
            host: broker.host, port: broker.port, on: loop, delegate: self, timeoutMs: Int(deadline.remainingMs))
        self.stream = stream
        _ = stream.write(frame.finished())
        while answer == nil, !isOver, deadline.remainingMs > 0 {
            loop.runOnce(timeoutMs: Int(deadline.remainingMs))
        }
        self.stream = nil
        stream.close()
        return answer
    }

    func stream(_ stream: Stream, received bytes: Span<UInt8>) {
        guard self.stream === stream else { return }
        var position = 0
        do {
            while answer == nil, let next = try inbox.next(bytes, &position) { answer = next }
        } catch {
            isOver = true
        }
    }

    func streamEnded(_ stream: Stream) { end(stream) }
    func streamClosed(_ stream: Stream, reason: CloseReason) { end(stream) }

    private func end(_ stream: Stream) { if self.stream === stream { isOver = true } }
}
