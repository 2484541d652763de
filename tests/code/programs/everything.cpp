// Every way in which C++ binds a name; compiled before and after a renaming of everything that is safe to rename.
#include <array>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace shapes {
constexpr int scale = 2;

template <typename T, int Size>
class Box {
public:
    T value;
    int count = Size;
    explicit Box(T value, int count = Size) : value(value), count{count} {}
    virtual ~Box() = default;
    virtual T area(int factor) const { return value * factor * count; }
    int size() const { return count; }
    friend bool operator<(const Box& left, const Box& right) { return left.value < right.value; }

protected:
    T helper(const T& other) const;
};

template <typename T, int Size>
T Box<T, Size>::helper(const T& other) const
{
    T result = value;
    result += other;
    return result;
}

struct Derived : Box<int, 3> {
    int name;
    Derived(int name) : Box(name), name(name) { this->name += name; }
    int area(int factor) const override
    {
        int count = name;
        return count + factor + helper(count) + Box::count;
    }
};
}  // namespace shapes

int lambdas(int value)
{
    int total = 0;
    auto add = [&total, value](int other) { total += value + other; return total; };
    auto scaled = [value = value * 2, copy = std::string("x")](auto other) mutable -> decltype(other + value) {
        value += other;
        return value + static_cast<int>(copy.size());
    };
    auto all = [&] { int value = 3; return value + total; };
    auto nested = [=](int first) { return [=](int second) { return first * second + value; }; };
    return add(1) + scaled(2) + all() + nested(3)(4);
}

int ranges(const std::map<std::string, std::vector<int>>& table)
{
    int sum = 0;
    for (const auto& [name, values] : table) {
        for (int value : values)
            sum += value;
        for (auto values : values)
            sum -= values;
        sum += static_cast<int>(name.size());
    }
    if (auto found = table.find("key"); found != table.end())
        sum += found->second.front();
    else if (auto missing = table.size(); missing > 1)
        sum += static_cast<int>(missing + found->second.size());
    while (int left = sum / 2)
        sum = left - 1;
    return sum;
}

std::string construct(const char* text, int length)
{
    std::string made(text, length);
    std::string copy(made);
    std::vector<int> numbers(length), more{length, 2}, last = std::vector<int>(length, 1);
    std::array<int, 2> pair{{numbers[0], more[1]}};
    auto* heap = new std::string(copy);
    auto* many = new int[length];
    many[0] = pair[0];
    made += *heap + std::to_string(many[0] + last[0]);
    delete heap;
    delete[] many;
    return made;
}

template <typename First, typename... Rest>
auto sum(const First& first, Rest&&... rest) -> decltype(first + 1)
{
    if constexpr (sizeof...(rest) == 0)
        return first;
    else
        return first + (static_cast<First>(rest) + ...);
}

int errors(int code)
{
    try {
        if (code > 3)
            throw std::runtime_error("code " + std::to_string(code));
        code = (code) - (code) * (code);
    } catch (const std::exception& error) {
        return static_cast<int>(std::string(error.what()).size());
    } catch (...) {
    }
    return code;
}

int local_types(int value)
{
    struct Local {
        int value;
        int twice() const { int result = value * 2; return result; }
    };
    enum class Kind { value, other };
    using number = long;
    number result = Local{value}.twice();
    {
        using std::swap;
        int swapped = 1;
        swap(value, swapped);
        result += swapped;
    }
    return static_cast<int>(result) + (Kind::value == Kind::other) + shapes::scale;
}

int shadows(int value)
{
    int total = value;
    for (int value = 0; value < 3; ++value) {
        int total = value;
        total++;
    }
    {
        long value = total;
        total += static_cast<int>(value);
    }
    return total + value;
}

int main(int argc, char** argv)
{
    shapes::Derived derived(argc);
    const shapes::Box<int, 3>& box = derived;
    return lambdas(argc) + ranges({}) + errors(argc) + local_types(1) + shadows(2) + sum(1, 2, 3) + box.area(2)
        + static_cast<int>(construct(argv[0], 1).size());
}
