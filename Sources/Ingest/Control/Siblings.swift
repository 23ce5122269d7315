import Synchronization
import System
import Wire

/// The loops of one process, as they reach one another. Only control goes this way: a device that comes to one loop ends its
/// session on another.
final class Siblings: Sendable {
    private let members = Mutex<[(remote: EventLoop.Remote, chat: LoopBound<ChatLoop>)]>([])
    private let lastOpenedUs = Mutex<Int64>(0)

    func add(_ chat: ChatLoop) {
        let entry = (remote: chat.loop.remote, chat: LoopBound(chat, on: chat.loop))
        members.withLock { $0.append(entry) }
    }

    func forEach(_ body: @escaping @Sendable (ChatLoop) -> Void) {
        for member in members.withLock({ $0 }) {
            let bound = member.chat
            member.remote.execute { loop in body(bound.value(on: loop)) }
        }
    }

    /// The time at which a session opens, in microseconds; no two are the same, and they rise whatever the clock does.
    func openingUs(nowMs: Int64) -> Int64 {
        lastOpenedUs.withLock {
            $0 = max($0 + 1, nowMs * 1000)
            return $0
        }
    }

    func takeOver(_ device: ChatLoop.DeviceKey, by newcomer: ChatLoop, openedUs: Int64) {
        let all = members.withLock { $0 }
        guard all.count > 1 else { return }
        for member in all where member.remote !== newcomer.loop.remote {
            let bound = member.chat
            member.remote.execute { loop in bound.value(on: loop).takenOver(device, openedUs: openedUs) }
        }
    }

    func removeAll() { members.withLock { $0 = [] } }
}

extension ChatLoop {
    /// The device has opened a session on another loop; one that it opened here since stays.
    func takenOver(_ device: DeviceKey, openedUs: Int64) {
        guard let number = devices[device], let (client, session) = session(number), session.openedUs < openedUs else {
            return
        }
        takenOver(client)
    }

    func takenOver(_ client: Client) { refuse(client, .takenOver, "another session of this device") }
}
