import PushLink
import Wire

/// A worker that owns every partition, and chat servers that do nothing but answer, joined by memory.
final class Stand {
    let worker: DeliveryWorker
    private var links: [InstanceLink] = []
    private var offsets: [Int64]
    private let partitionCount: Int32
    private var source: [UInt8] = []
    var nowMs: Int64 = 1_763_000_000_000

    init(instances: Int, partitionCount: Int32) {
        self.partitionCount = partitionCount
        offsets = [Int64](repeating: 0, count: Int(partitionCount))
        let secret = LinkSecret(Array("benchmark".utf8))
        var settings = DeliverySettings(
            identity: LinkIdentity(name: "worker", epoch: 1), secret: secret, partitionCount: partitionCount)
        settings.linkBytesMax = 1 << 30
        worker = DeliveryWorker(settings)
        for partition in 0..<partitionCount {
            worker.own(
                partition, term: 1, readsFrom: 0, remembersFrom: 0, liveFrom: 0, knownEnd: 0, saved: nil, nowMs: nowMs)
        }
        for number in 0..<instances {
            let identity = LinkIdentity(name: "chat-\(number)", epoch: 1)
            worker.announced(identity, address: "memory", nowMs: nowMs)
            worker.linkConnected(number, nonce: LinkSecret.nonce(), nowMs: nowMs)
            links.append(InstanceLink(identity: identity, secret: secret, nonce: LinkSecret.nonce(), nowMs: nowMs))
            for _ in 0..<2 {
                hand(worker.takeOutput(number, nowMs: nowMs), to: number)
                let answer = links[number].takeOutput(nowMs: nowMs)
                _ = worker.linkReceived(number, answer.span, nowMs: nowMs)
            }
            hand(worker.takeOutput(number, nowMs: nowMs), to: number)
        }
        worker.directoryRead(nowMs: nowMs)
        nowMs += 3_000
        worker.tick(nowMs: nowMs)
        _ = worker.takeActions()
    }

    private func hand(_ bytes: [UInt8], to number: Int) {
        links[number].receive(bytes.span, nowMs: nowMs)
        do {
            while try links[number].next() != nil {}
        } catch {
            preconditionFailure("\(error)")
        }
    }

    /// One session a user, spread over the chat servers.
    func open(users: Int) {
        for number in links.indices {
            for bytes in registrations(users: users, of: number) {
                _ = worker.linkReceived(number, bytes.span, nowMs: nowMs)
            }
            hand(worker.takeOutput(number, nowMs: nowMs), to: number)
        }
    }

    func registrations(users: Int) -> [[UInt8]] { registrations(users: users, of: 0) }

    private func registrations(users: Int, of number: Int) -> [[UInt8]] {
        var lists = [[SessionRegistration]](repeating: [], count: Int(partitionCount))
        for index in stride(from: number, to: users, by: links.count) {
            let user = DeliveryBenchmark.user(index)
            lists[Int(user.partition(count: partitionCount))].append(
                SessionRegistration(number: UInt32(index + 1), user: user, device: DeviceID(user.uuid), after: nil))
        }
        var frames: [[UInt8]] = []
        for (partition, list) in lists.enumerated() {
            var start = 0
            repeat {
                let end = min(start + LinkLimits.sessionsPerFrame, list.count)
                links[number].send(
                    .register(
                        request: 1, partition: Int32(partition), isLast: end == list.count, Array(list[start..<end])))
                frames.append(links[number].takeOutput(nowMs: nowMs))
                start = end
            } while start < list.count
        }
        return frames
    }

    func fills(users: Int) -> [UInt8] {
        for index in 0..<users {
            let partition = DeliveryBenchmark.user(index).partition(count: partitionCount)
            links[0].send(
                .fill(
                    FillRequest(
                        request: UInt32(index), partition: partition, session: UInt32(index + 1), after: .start,
                        through: offsets[Int(partition)] - 1, bytesMax: 65_536)))
        }
        return links[0].takeOutput(nowMs: nowMs)
    }

    /// Everybody's presence is watched.
    func watch(users: Int) {
        for first in stride(from: 0, to: users, by: LinkLimits.sessionsPerFrame) {
            let end = min(first + LinkLimits.sessionsPerFrame, users)
            links[0].send(.watch((first..<end).map { DeliveryBenchmark.user($0) }))
            _ = worker.linkReceived(0, links[0].takeOutput(nowMs: nowMs).span, nowMs: nowMs)
        }
        receive(acknowledge(takeOutput()))
    }

    /// What the chat server says when the sessions of these users end.
    func leaving(users: Int) -> [[UInt8]] {
        let numbers = Dictionary(grouping: 0..<users) { DeliveryBenchmark.user($0).partition(count: partitionCount) }
        return numbers.sorted { $0.key < $1.key }.flatMap { partition, users in
            stride(from: 0, to: users.count, by: LinkLimits.sessionsPerFrame).map { first in
                let part = users[first..<min(first + LinkLimits.sessionsPerFrame, users.count)]
                links[0].send(.unregister(partition: partition, part.map { UInt32($0 + 1) }))
                return links[0].takeOutput(nowMs: nowMs)
            }
        }
    }

    func take(_ record: Record) {
        let offset = offsets[Int(record.partition)]
        offsets[Int(record.partition)] = offset + 1
        source.removeAll(keepingCapacity: true)
        source.append(contentsOf: "chat.incoming/7/".utf8)
        source.appendDecimal(offset)
        let header = source
        let taken = worker.take(
            record.partition, Cursor(offset: offset, timestamp: 1_763_000_000_000), value: record.value.span,
            source: header.span, nowMs: nowMs)
        precondition(taken == .taken)
    }

    func takeOutput() -> [[UInt8]] { links.indices.map { worker.takeOutput($0, nowMs: nowMs) } }

    /// The chat servers' part, which is not the worker's time.
    func acknowledge(_ output: [[UInt8]]) -> [[UInt8]] {
        links.indices.map { number in
            hand(output[number], to: number)
            links[number].acknowledge()
            return links[number].takeOutput(nowMs: nowMs)
        }
    }

    func receive(_ answers: [[UInt8]]) {
        for (number, answer) in answers.enumerated() { _ = worker.linkReceived(number, answer.span, nowMs: nowMs) }
        _ = worker.takePushes(nowMs: .max, limit: 1_000)
    }
}
